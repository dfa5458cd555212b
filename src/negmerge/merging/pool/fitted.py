"""What a pool is once its members fit the base."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.adapter import BoundAdapter

MOST_NAMED = 4  # names in a warning


@dataclass(frozen=True)
class Pool:
    """A base and members that fit it; `merged` are the names that merge, all others pass through from the base.

    `order` are the places that the members had in the list as it was given. `tied` maps the further names of merged
    tensors to the one in `merged`, `implied` those of heads that neither base nor OUT hold. `config_changes` are the
    keys that OUT's config.json has other than the base's. `partial` maps merged names that some adapters cannot change
    to the number of members that can.
    """

    base: Checkpoint
    members: tuple[Checkpoint, ...]
    merged: tuple[str, ...]
    order: tuple[int, ...]
    tied: Mapping[str, str] = field(default_factory=dict)
    implied: Mapping[str, str] = field(default_factory=dict)
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    partial: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    start: str = "the base"  # what messages call the model that the members are compared with

    @cached_property
    def merged_set(self) -> frozenset[str]:
        """The names that merge, to look one up."""
        return frozenset(self.merged)

    @property
    def passed(self) -> tuple[str, ...]:
        """The names that pass through from the base."""
        return tuple(name for name in self.base.names if name not in self.merged_set and name not in self.tied)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was taken of several models in a file; adapters of another base, ties undone, targets of some alone."""
        known = self.base.path.resolve().name.partition("@")[0]
        declared = [(m.path, m.declared_base) for m in self.members if isinstance(m, BoundAdapter)]
        others = [
            f"{path} says that it was trained on {base}, the base given is {self.base.path}"
            for path, base in declared
            if base and Path(base).name != known
        ]
        chosen = [line for model in (self.base, *self.members) for line in model.notes]
        return (*chosen, *others, *self.notes, *self._partial_warning())

    def _partial_warning(self) -> list[str]:
        if not self.partial:
            return []
        total = len(self.members)
        named = [f"{name} by {count} of {total}" for name, count in list(self.partial.items())[:MOST_NAMED]]
        more = [f"… {len(self.partial) - MOST_NAMED} more"] if len(self.partial) > MOST_NAMED else []
        return [
            f"{len(self.partial)} of {len(self.merged)} merged tensors are targets of some members only "
            f"({', '.join([*named, *more])}); the others change them by 0, which under consensus with zeros=veto "
            "leaves them as they are; the share that is kept is of the tensors that all members change"
        ]
