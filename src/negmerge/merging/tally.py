"""What the passes over a pool find: how much of each tensor is kept, which members differ, what changes in OUT."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from negmerge.checkpoints.base import elements
from negmerge.errors import InputError
from negmerge.merging.agreement import Agreement, Effect
from negmerge.merging.pool.fitted import Pool


@dataclass(frozen=True)
class TensorCount:
    """How much of one merged tensor was kept."""

    name: str
    shape: tuple[int, ...]
    elements: int
    kept: int


@dataclass
class Tally:
    """The finds of one term; jobs are added in their order, so that every sum has one order too."""

    pool: Pool
    kept: dict[str, int] = field(init=False)
    differs: np.ndarray[Any, Any] = field(init=False)
    agreement: Agreement = field(init=False)

    def __post_init__(self) -> None:
        self.kept = dict.fromkeys(self.pool.merged, 0)
        self.differs = np.zeros(len(self.pool.members), np.bool_)
        self.agreement = Agreement.of(len(self.pool.members))

    def add(
        self,
        kept: Sequence[tuple[str, int]],
        differs: np.ndarray[Any, Any],
        products: np.ndarray[Any, Any],
        counts: np.ndarray[Any, Any],
    ) -> None:
        """Add what a job found: elements kept of each piece, members that differ from the base, sums of products."""
        for name, count in kept:
            self.kept[name] += count
            if name in self.pool.partial:  # an adapter's change of it is 0 because it has none
                counts = np.zeros_like(counts)
        self.differs |= differs.astype(np.bool_)
        self.agreement.add(products, counts)

    def counts(self) -> tuple[TensorCount, ...]:
        """Return the count of each merged tensor.

        Raises InputError for a member that equals the base everywhere.
        """
        for member, different in zip(self.pool.members, self.differs, strict=True):
            if not different:
                where = f"{self.pool.start} in every merged tensor"
                raise InputError(f"{member.path} equals {where}; it was not fine-tuned, leave it out")
        shapes = {name: self.pool.base.shape(name) for name in self.pool.merged}
        return tuple(TensorCount(name, shape, elements(shape), self.kept[name]) for name, shape in shapes.items())


@dataclass(frozen=True)
class Merged:
    """What a merge did: the counts and the agreement of each term, and the effect on OUT, if OUT holds a model."""

    counts: tuple[tuple[TensorCount, ...], ...]
    agreements: tuple[Agreement, ...]
    effect: Effect | None
