"""Breadcrumbs: drop both the largest and the smallest elements of each task vector."""

from typing import Literal

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.merging.methods._trimming import check_density, check_scope, kept_of, kth_magnitudes

SUMMARY = "drop the outliers and the small elements of each task vector, average the rest"
REFERENCE = "Davari, Belilovsky, Model Breadcrumbs, ECCV 2024 (arXiv 2312.06795)"
REACH = "statistics"


def merge(
    deltas: Tensor,
    *,
    statistic: Tensor | None = None,
    density: float = 0.5,
    gamma: float = 0.01,
    scope: Literal["tensor", "model"] = "tensor",
) -> Tensor:
    """Merge task vectors by their breadcrumbs.

        o = ⌊γ·n⌋ outliers;  k = max(1, ⌊d·n⌋) kept
        τ̂ᵢ(j) = τᵢ(j) where c(o + k) ≤ |τᵢ(j)| ≤ c(o + 1), else 0;  c(r) = the r-th largest |τᵢ|
        τ(j) = Σᵢ τ̂ᵢ(j) / N

    d is the `density`, γ the share of outliers; n counts the elements of a tensor, or of all merged ones with
    scope="model". Where o + k exceeds n, all but the outliers are kept.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Members are summed in their order. Ties at
    both ends are kept.

    Raises InputError for a density outside (0, 1], a gamma outside [0, 1) and an unknown scope.

    >>> merge(torch.tensor([[9.0, -3.0, 2.0, 0.5]]), density=0.5, gamma=0.25)
    tensor([ 0., -3.,  2.,  0.])

    Source: arXiv 2312.06795, equations 1 to 3.
    """
    return merge_with_mask(deltas, statistic=statistic, density=density, gamma=gamma, scope=scope)[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    statistic: Tensor | None = None,
    density: float = 0.5,
    gamma: float = 0.01,
    scope: Literal["tensor", "model"] = "tensor",
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the mask [n] of the elements that at least one member kept."""
    if statistic is None:
        statistic = kth_magnitudes(deltas, ranks(deltas.shape[1], density=density, gamma=gamma, scope=scope))
    cutoffs = statistic.to(deltas)
    total = torch.zeros_like(deltas[0])
    kept = torch.zeros_like(total, dtype=torch.bool)
    for delta, (highest, lowest) in zip(deltas, cutoffs, strict=True):
        size = delta.abs()
        crumbs = (size >= lowest) & (size <= highest)
        total += torch.where(crumbs, delta, 0.0)
        kept |= crumbs
    return total / len(deltas), kept


def ranks(count: int, *, density: float = 0.5, gamma: float = 0.01, scope: str = "tensor") -> tuple[int, ...]:
    """Return the ranks of the largest and of the smallest magnitude that are kept of `count` elements."""
    check_density(density)
    check_scope(scope)
    if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0.0 <= gamma < 1.0:
        raise InputError(f"gamma must be from 0 to below 1, got {gamma!r}: it is the share of outliers")
    outliers = int(gamma * count + 1e-9)
    return min(count, outliers + 1), min(count, outliers + kept_of(density, count))
