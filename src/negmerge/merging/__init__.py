"""Merging: task vectors of a pool, read in chunks, to one vector."""
