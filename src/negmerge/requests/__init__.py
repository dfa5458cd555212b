"""From rules to rows: what is forgotten, retained, held out and tested."""
