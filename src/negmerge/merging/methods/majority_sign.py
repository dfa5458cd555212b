"""Majority sign: elect a sign for every element, average those who have it."""

from typing import Literal

from torch import Tensor

from negmerge.merging.methods._electing import disjoint_mean, elect

SUMMARY = "elect each element's sign by mass or by count, average the members that have it"
REFERENCE = "Yadav et al., TIES-Merging, NeurIPS 2023 (arXiv 2306.01708), without its trimming"
REACH = "element"


def merge(deltas: Tensor, *, elect_by: Literal["mass", "count"] = "mass") -> Tensor:
    """Merge task vectors by the majority's sign.

        γ(j) = sgn(Σᵢ τᵢ(j)), or sgn(Σᵢ sgn τᵢ(j)) with elect_by="count";  τ(j) = mean of the τᵢ(j) with sign γ(j)

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Members are summed in their order. Zeros
    belong to no sign, and a tie (γ = 0) gives 0.

    Raises InputError for an unknown elect_by.

    >>> import torch
    >>> merge(torch.tensor([[3.0, -1.0, 1.0], [-1.0, -3.0, -1.0]]))
    tensor([ 3., -2.,  0.])

    Source: arXiv 2306.01708, the election and the disjoint mean of algorithm 1.
    """
    return merge_with_mask(deltas, elect_by=elect_by)[0]


def merge_with_mask(deltas: Tensor, *, elect_by: Literal["mass", "count"] = "mass") -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the mask [n] of the elements that have a winner."""
    return disjoint_mean(deltas, elect(deltas, elect_by))
