"""Keeping the elements of largest magnitude: what TIES, breadcrumbs and the masked consensus share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negmerge.errors import InputError

SCOPES = ("tensor", "model")


def check_density(density: float, name: str = "density") -> None:
    """Raise InputError unless 0 < density ≤ 1."""
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0.0 < density <= 1.0:
        raise InputError(f"{name} must be above 0 and at most 1, got {density!r}: it is the share that is kept")


def check_scope(scope: str) -> None:
    """Raise InputError for a scope that is not `tensor` or `model`."""
    if scope not in SCOPES:
        raise InputError(f"scope must be tensor or model, got {scope!r}: where the largest elements are counted")


def kept_of(density: float, count: int) -> int:
    """Return how many of `count` elements a density keeps: ⌊d·n⌋, one at least; rounding errors of d·n aside.

    >>> kept_of(0.2, 10), kept_of(0.29, 100), kept_of(0.2, 1), kept_of(0.2, 0)
    (2, 29, 1, 0)
    """
    return min(count, max(1, int(density * count + 1e-9)))


def kth_magnitudes(deltas: Tensor, ranks: Sequence[int]) -> Tensor:
    """Return the magnitudes [N, ranks] at each rank (1 is the largest) of each row, by selection, not by sorting."""
    count = deltas.shape[1]
    if count == 0:
        return deltas.new_zeros(len(deltas), len(ranks))
    sizes = deltas.abs()
    return torch.stack([sizes.kthvalue(count - rank + 1, dim=1).values for rank in ranks], dim=1)


def trim(deltas: Tensor, cutoffs: Tensor) -> Tensor:
    """Return task vectors with every element below its member's cutoff [N] set to 0; ties at the cutoff are kept."""
    return torch.where(deltas.abs() >= cutoffs.to(deltas)[:, None], deltas, 0.0)
