"""Majority sign: elect a sign for every element, average those who have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.electing import ElectBy, disjoint_mean, elect
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "elect each element's sign by mass or by count, average the members that have it"
REFERENCE = "Yadav et al., TIES-Merging, NeurIPS 2023 (arXiv 2306.01708), without its trimming"
REACH = "element"


class Settings(MergeSettings):
    """How a sign wins."""

    elect_by: ElectBy = "mass"


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by the majority's sign.

        γ(j) = sgn(Σᵢ τᵢ(j)), or sgn(Σᵢ sgn τᵢ(j)) with elect_by="count";  τ(j) = mean of the τᵢ(j) with sign γ(j)

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the elements that have
    a winner. Members are summed in their order. Zeros belong to no sign, and a tie (γ = 0) gives 0.

    >>> import torch
    >>> merge(torch.tensor([[3.0, -1.0, 1.0], [-1.0, -3.0, -1.0]]), Settings()).delta
    tensor([ 3., -2.,  0.])

    Source: arXiv 2306.01708, the election and the disjoint mean of algorithm 1.
    """
    return Merged(*disjoint_mean(deltas, elect(deltas, settings.elect_by)))
