"""Merge methods: pure functions on task vectors. A new one is a file in this package.

A method's module has

* `SUMMARY` (one line) and `REFERENCE` (its source),
* `merge(deltas, *, …settings) -> delta` on task vectors [N, n]; its keyword-only parameters are its settings,
* `REACH`: `"element"`, the engine cuts tensors anywhere; or `"statistics"`, a pass over each tensor (over the model
  with `scope="model"`) comes first, and what it found is handed to `merge` as `statistic`. Without it, `merge` takes
  the deltas it is given for the whole. The module then has either `ranks(count, *, …settings)`, the ranks of magnitude
  (1 is the largest) whose values are wanted of each member: `statistic` is [N, ranks]; or
  `count(deltas, *, …settings) -> int`, which is summed over the chunks: `statistic` is its share of the elements, [].

A method that drops elements also has `merge_with_mask`, with the parameters of `merge`, which returns the delta and the
mask of what it kept; without it every element counts as kept. One with `RANDOM = True` takes `place` too, and draws by
it, so that chunks and threads do not change what is drawn. `PER_MEMBER` names settings that are lists with one entry
for each member.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a chunk lies: the name of the tensor, its first element there, and the seed of the merge."""

    tensor: str = ""
    start: int = 0
    seed: int = 0


WHOLE = Place()
GIVEN = ("place", "statistic")  # keyword-only parameters that the engine hands over: they are no settings
