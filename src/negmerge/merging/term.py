"""One summand of a merge, and what a method may want to know of its tensors first."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.merging.layer_change import LayerChange
from negmerge.merging.merger import Merger
from negmerge.merging.pool.fitted import Pool

Statistics = dict[str, np.ndarray[Any, Any]]  # by merged name


@dataclass(frozen=True)
class Term:
    """One summand of a merge: ±α · w ⊙ method(members − origin), the origin being the base of the pool.

    `weights` has a tensor w for every merged name, of the same shape; without it w is 1. `change` is what becomes of
    the vector, layer by layer, before it is applied.
    """

    pool: Pool
    merger: Merger
    alpha: float = 1.0
    add: bool = False
    weights: Checkpoint | None = None
    change: LayerChange | None = None
