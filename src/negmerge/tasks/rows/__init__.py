"""Rows of any kind: sets in memory, sources joined and split, the folder of a run, seeded epochs."""
