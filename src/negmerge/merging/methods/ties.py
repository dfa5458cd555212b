"""TIES: trim, elect signs, average those who agree."""

from typing import Literal

from torch import Tensor

from negmerge.merging.methods._electing import disjoint_mean, elect
from negmerge.merging.methods._trimming import check_density, check_scope, kept_of, kth_magnitudes, trim

SUMMARY = "trim each task vector to its largest elements, elect signs by mass, average those who agree"
REFERENCE = "Yadav et al., TIES-Merging, NeurIPS 2023 (arXiv 2306.01708)"
REACH = "statistics"


def merge(
    deltas: Tensor,
    *,
    statistic: Tensor | None = None,
    density: float = 0.2,
    scope: Literal["tensor", "model"] = "tensor",
    elect_by: Literal["mass", "count"] = "mass",
) -> Tensor:
    """Merge task vectors by TIES.

        τ̂ᵢ(j) = τᵢ(j) where |τᵢ(j)| ≥ cᵢ, else 0;  cᵢ = the k-th largest |τᵢ|,  k = max(1, ⌊d·n⌋)
        γ(j) = sgn(Σᵢ τ̂ᵢ(j));  τ(j) = mean of the τ̂ᵢ(j) with sign γ(j)

    d is the `density`; n counts the elements of a tensor (the published code: scope="model") or of all merged ones.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Members are summed in their order.
    Ties at the k-th value are kept. Zeros belong to no sign. Where γ = 0, since the masses cancel, τ = 0 (as in the
    paper's formula; peft elects plus there). elect_by="count" elects the sign that more of the trimmed vectors have.

    Raises InputError for a density outside (0, 1], and an unknown scope or elect_by.

    >>> import torch
    >>> merge(torch.tensor([[3.0, -1.0, 0.5, 2.0], [0.9, 4.0, 0.5, -1.0]]), density=0.5)
    tensor([3., 4., 0., 2.])

    Source: arXiv 2306.01708, algorithm 1.
    """
    return merge_with_mask(deltas, statistic=statistic, density=density, scope=scope, elect_by=elect_by)[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    statistic: Tensor | None = None,
    density: float = 0.2,
    scope: Literal["tensor", "model"] = "tensor",
    elect_by: Literal["mass", "count"] = "mass",
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the mask [n] of the elements that somebody of the elected sign kept."""
    if statistic is None:
        statistic = kth_magnitudes(deltas, ranks(deltas.shape[1], density=density, scope=scope))
    trimmed = trim(deltas, statistic[:, 0])
    return disjoint_mean(trimmed, elect(trimmed, elect_by))


def ranks(count: int, *, density: float = 0.2, scope: str = "tensor", **_: object) -> tuple[int, ...]:
    """Return the rank of the smallest magnitude that is kept of `count` elements."""
    check_density(density)
    check_scope(scope)
    return (kept_of(density, count),)
