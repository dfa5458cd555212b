"""Merge methods: pure functions on task vectors. A new one is a file in this package; every file here is one.

`negmerge.merging.method` says what such a file declares, and what it may leave out.
"""
