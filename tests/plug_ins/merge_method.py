"""A merge method as a file of one's own: the first member."""

from negmerge.merging.method import Merged, MergeSettings

SUMMARY = "the first member's task vector"
REFERENCE = "a test"
REACH = "element"


class Settings(MergeSettings):
    """It has none."""


def merge(deltas, settings, place=None, statistic=None):
    """Return the first row of deltas [N, n]."""
    return Merged(deltas[0].clone())
