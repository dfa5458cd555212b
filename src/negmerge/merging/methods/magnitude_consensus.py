"""Consensus among the largest elements of each task vector."""

from typing import Literal

from torch import Tensor

from negmerge.merging.methods import consensus
from negmerge.merging.methods._trimming import check_density, check_scope, kept_of, kth_magnitudes, trim

SUMMARY = "trim each task vector to its largest elements, then keep those whose sign all members share"
REFERENCE = "Kim, Han, Choe, NegMerge (arXiv 2410.05583) on vectors trimmed as in TIES (arXiv 2306.01708)"
REACH = "statistics"


def merge(
    deltas: Tensor,
    *,
    statistic: Tensor | None = None,
    density: float = 0.5,
    scope: Literal["tensor", "model"] = "tensor",
    threshold: float = 1.0,
    mean: Literal["all", "agreeing"] = "all",
    zeros: Literal["veto", "abstain"] = "veto",
) -> Tensor:
    """Merge task vectors by sign consensus among their elements of largest magnitude.

        τ̂ᵢ(j) = τᵢ(j) where |τᵢ(j)| ≥ cᵢ, else 0;  cᵢ = the k-th largest |τᵢ|,  k = max(1, ⌊d·n⌋)
        τ = consensus(τ̂₁ … τ̂_N; threshold, mean, zeros)

    d is the `density`; n counts the elements of a tensor, or of all merged ones with scope="model". A trimmed element
    is a zero: it agrees with nobody (zeros="veto"), or does not vote (zeros="abstain").

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Ties at the k-th value are kept.

    Raises InputError for a density outside (0, 1], an unknown scope, and what `consensus` refuses.

    >>> import torch
    >>> merge(torch.tensor([[3.0, 1.0, 4.0, 2.0], [1.0, 2.0, 3.0, 4.0]]), density=0.5)
    tensor([0.0000, 0.0000, 3.5000, 0.0000])

    Source: the consensus of arXiv 2410.05583, equations 3 and 4, after the trimming of arXiv 2306.01708.
    """
    return merge_with_mask(
        deltas, statistic=statistic, density=density, scope=scope, threshold=threshold, mean=mean, zeros=zeros
    )[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    statistic: Tensor | None = None,
    density: float = 0.5,
    scope: Literal["tensor", "model"] = "tensor",
    threshold: float = 1.0,
    mean: Literal["all", "agreeing"] = "all",
    zeros: Literal["veto", "abstain"] = "veto",
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the boolean mask [n] of the kept elements."""
    if statistic is None:
        statistic = kth_magnitudes(deltas, ranks(deltas.shape[1], density=density, scope=scope))
    trimmed = trim(deltas, statistic[:, 0])
    return consensus.merge_with_mask(trimmed, threshold=threshold, mean=mean, zeros=zeros)


def ranks(count: int, *, density: float = 0.5, scope: str = "tensor", **_: object) -> tuple[int, ...]:
    """Return the rank of the smallest magnitude that is kept of `count` elements."""
    check_density(density)
    check_scope(scope)
    return (kept_of(density, count),)
