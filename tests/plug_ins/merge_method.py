"""A merge method as a file of one's own: the first member."""

SUMMARY = "the first member's task vector"
REFERENCE = "a test"
REACH = "element"


def merge(deltas):
    """Return the first row of deltas [N, n]."""
    return deltas[0]
