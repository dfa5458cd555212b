"""TIES: trim, elect signs, average those who agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.electing import ElectBy, disjoint_mean, elect
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.trimming import Density, Scope, kept_of, kth_magnitudes, trim

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "trim each task vector to its largest elements, elect signs by mass, average those who agree"
REFERENCE = "Yadav et al., TIES-Merging, NeurIPS 2023 (arXiv 2306.01708)"
REACH = "statistics"


class Settings(MergeSettings):
    """How much is kept, counted where, and how a sign wins."""

    density: Density = 0.2
    scope: Scope = "tensor"
    elect_by: ElectBy = "mass"


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by TIES.

        τ̂ᵢ(j) = τᵢ(j) where |τᵢ(j)| ≥ cᵢ, else 0;  cᵢ = the k-th largest |τᵢ|,  k = max(1, ⌊d·n⌋)
        γ(j) = sgn(Σᵢ τ̂ᵢ(j));  τ(j) = mean of the τ̂ᵢ(j) with sign γ(j)

    d is the `density`; n counts the elements of a tensor (scope="tensor"), or those of all merged tensors together
    (scope="model", as in the published code).

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the elements that
    somebody of the elected sign kept. `statistic` is [N, 1], the cutoffs cᵢ. Members are summed in their order. Ties at
    the k-th value are kept. Zeros belong to no sign. Where γ = 0, since the masses cancel, τ = 0 (as in the paper's
    formula; peft elects plus there). elect_by="count" elects the sign that more of the trimmed vectors have.

    >>> import torch
    >>> merge(torch.tensor([[3.0, -1.0, 0.5, 2.0], [0.9, 4.0, 0.5, -1.0]]), Settings(density=0.5)).delta
    tensor([3., 4., 0., 2.])

    Source: arXiv 2306.01708, algorithm 1.
    """
    if statistic is None:
        statistic = kth_magnitudes(deltas, ranks(deltas.shape[1], settings))
    trimmed = trim(deltas, statistic[:, 0])
    return Merged(*disjoint_mean(trimmed, elect(trimmed, settings.elect_by)))


def ranks(count: int, settings: Settings) -> tuple[int, ...]:
    """Return the rank of the smallest magnitude that is kept of `count` elements."""
    return (kept_of(settings.density, count),)
