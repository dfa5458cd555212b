"""Consensus among the largest elements of each task vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.method import WHOLE, Merged, Place
from negmerge.merging.methods import consensus
from negmerge.merging.trimming import Density, Scope, kept_of, kth_magnitudes, trim

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "trim each task vector to its largest elements, then keep those whose sign all members share"
REFERENCE = "Kim, Han, Choe, NegMerge (arXiv 2410.05583) on vectors trimmed as in TIES (arXiv 2306.01708)"
REACH = "statistics"


class Settings(consensus.Settings):
    """Those of the consensus, and how much is kept, counted where."""

    density: Density = 0.5
    scope: Scope = "tensor"


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by sign consensus among their elements of largest magnitude.

        τ̂ᵢ(j) = τᵢ(j) where |τᵢ(j)| ≥ cᵢ, else 0;  cᵢ = the k-th largest |τᵢ|,  k = max(1, ⌊d·n⌋)
        τ = consensus(τ̂₁ … τ̂_N; threshold, mean, zeros)

    d is the `density`; n counts the elements of a tensor (scope="tensor"), or those of all merged tensors together
    (scope="model"). A trimmed element is a zero: it agrees with nobody (zeros="veto"), or does not vote
    (zeros="abstain").

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the kept elements.
    `statistic` is [N, 1], the cutoffs cᵢ. Ties at the k-th value are kept.

    >>> import torch
    >>> merge(torch.tensor([[3.0, 1.0, 4.0, 2.0], [1.0, 2.0, 3.0, 4.0]]), Settings(density=0.5)).delta
    tensor([0.0000, 0.0000, 3.5000, 0.0000])

    Source: the consensus of arXiv 2410.05583, equations 3 and 4, after the trimming of arXiv 2306.01708.
    """
    if statistic is None:
        statistic = kth_magnitudes(deltas, ranks(deltas.shape[1], settings))
    return consensus.merge(trim(deltas, statistic[:, 0]), settings)


def ranks(count: int, settings: Settings) -> tuple[int, ...]:
    """Return the rank of the smallest magnitude that is kept of `count` elements."""
    return (kept_of(settings.density, count),)
