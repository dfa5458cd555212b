"""A base and its members: opened, held against each other, and fitted before a number is computed."""
