"""Merge methods: pure functions on task vectors. A new one is a file in this package.

A method's module has `SUMMARY` (one line), `REFERENCE` (its source), `REACH` ("element": the engine cuts anywhere) and
`merge(deltas, *, settings…) -> delta`. One that drops elements also has `merge_with_mask(deltas, *, settings…)`, which
returns the delta and the mask of what it kept; without it every element counts as kept. One with `RANDOM = True` takes
`place` too, and draws by it, so that chunks and threads do not change what is drawn. `PER_MEMBER` names settings that
are lists with one entry for each member.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a chunk lies: the name of the tensor, its first element there, and the seed of the merge."""

    tensor: str = ""
    start: int = 0
    seed: int = 0
