"""Merge methods: pure functions on task vectors. A new one is a file in this package.

A method's module has `SUMMARY` (one line), `REFERENCE` (its source), `REACH` ("element": the engine cuts anywhere) and
`merge(deltas, *, settings…) -> delta`. One that drops elements also has `merge_with_mask(deltas, *, settings…)`, which
returns the delta and the mask of what it kept; without it every element counts as kept.
"""
