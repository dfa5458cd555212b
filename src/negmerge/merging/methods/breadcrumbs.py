"""Breadcrumbs: drop both the largest and the smallest elements of each task vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from negmerge.merging.averaging import divided
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.trimming import Density, Scope, kept_of, kth_magnitudes

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "drop the outliers and the small elements of each task vector, average the rest"
REFERENCE = "Davari, Belilovsky, Model Breadcrumbs, ECCV 2024 (arXiv 2312.06795)"
REACH = "statistics"


class Settings(MergeSettings):
    """How much is kept below how many outliers, counted where."""

    density: Density = 0.5
    gamma: float = Field(
        0.01, ge=0, lt=1, description="share of the elements that are outliers, the largest, and dropped"
    )
    scope: Scope = "tensor"


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by their breadcrumbs.

        o = ⌊γ·n⌋ outliers;  k = max(1, ⌊d·n⌋) kept
        τ̂ᵢ(j) = τᵢ(j) where c(o + k) ≤ |τᵢ(j)| ≤ c(o + 1), else 0;  c(r) = the r-th largest |τᵢ|
        τ(j) = Σᵢ τ̂ᵢ(j) / N

    d is the `density`, γ the share of outliers; n counts the elements of a tensor (scope="tensor"), or those of all
    merged tensors together (scope="model"). Where o + k exceeds n, all but the outliers are kept.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the elements that at
    least one member kept. `statistic` is [N, 2], the magnitudes c(o + 1) and c(o + k) of each member. Members are
    summed in their order. Ties at both ends are kept.

    >>> import torch
    >>> merge(torch.tensor([[9.0, -3.0, 2.0, 0.5]]), Settings(density=0.5, gamma=0.25)).delta
    tensor([ 0., -3.,  2.,  0.])

    Source: arXiv 2312.06795, equations 1 to 3.
    """
    import torch

    if statistic is None:
        statistic = kth_magnitudes(deltas, ranks(deltas.shape[1], settings))
    cutoffs = statistic.to(deltas)
    total = torch.zeros_like(deltas[0])
    kept = torch.zeros_like(total, dtype=torch.bool)
    for delta, (highest, lowest) in zip(deltas, cutoffs, strict=True):
        size = delta.abs()
        crumbs = (size >= lowest) & (size <= highest)
        total += torch.where(crumbs, delta, 0.0)
        kept |= crumbs
    return Merged(divided(total, len(deltas)), kept)


def ranks(count: int, settings: Settings) -> tuple[int, ...]:
    """Return the ranks of the largest and of the smallest magnitude that are kept of `count` elements."""
    outliers = int(settings.gamma * count + 1e-9)
    return min(count, outliers + 1), min(count, outliers + kept_of(settings.density, count))
