"""Keeping the elements of largest magnitude: what TIES, breadcrumbs and the masked consensus share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

Density = Annotated[float, Field(gt=0, le=1, description="share of the elements that are kept")]
Scope = Annotated[
    Literal["tensor", "model"], Field(description="where elements are counted: in each tensor, or in all merged ones")
]


def kept_of(density: float, count: int) -> int:
    """Return how many of `count` elements a density keeps: ⌊d·n⌋, one at least; rounding errors of d·n aside.

    >>> kept_of(0.2, 10), kept_of(0.29, 100), kept_of(0.2, 1), kept_of(0.2, 0)
    (2, 29, 1, 0)
    """
    return min(count, max(1, int(density * count + 1e-9)))


def kth_magnitudes(deltas: Tensor, ranks: Sequence[int]) -> Tensor:
    """Return the magnitudes [N, ranks] at each rank (1 is the largest) of each row, by selection, not by sorting."""
    import torch

    count = deltas.shape[1]
    if count == 0:
        return deltas.new_zeros(len(deltas), len(ranks))
    sizes = deltas.abs()
    return torch.stack([sizes.kthvalue(count - rank + 1, dim=1).values for rank in ranks], dim=1)


def trim(deltas: Tensor, cutoffs: Tensor) -> Tensor:
    """Return task vectors with every element below its member's cutoff [N] set to 0; ties at the cutoff are kept."""
    import torch

    return torch.where(deltas.abs() >= cutoffs.to(deltas)[:, None], deltas, 0.0)
