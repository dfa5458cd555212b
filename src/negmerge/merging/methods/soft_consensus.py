"""Soft consensus: shrink each element of the mean by how much the members disagree about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.averaging import divided
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.methods import uniform

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "shrink each element of the mean by the members' variance around it, to 0 where they disagree most"
REFERENCE = "positive-part shrinkage (James, Stein 1961) beside Kim, Han, Choe, NegMerge (arXiv 2410.05583)"
REACH = "element"


class Settings(MergeSettings):
    """There are none."""


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by their mean, shrunk by the squared standard error of the mean relative to it.

        m(j) = Σᵢ τᵢ(j) / N;  s²(j) = Σᵢ (τᵢ(j) − m(j))² / (N − 1);  τ(j) = m(j)·max(0, 1 − s²(j) / (N·m(j)²))

    so that equal members give their mean, and members whose mean is below its standard error give 0.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the elements that are
    not 0: those count as kept. s²/m² is computed as the variance of τᵢ/m, so that small weights do not underflow.
    Members are summed in their order. N = 1: τ = τ₁. Where m = 0, τ = 0. A zero is a value like any other.

    >>> import torch
    >>> merge(torch.tensor([[1.0, 3.0, 1.0], [1.0, 1.0, -1.0]]), Settings()).delta  # s² = 0, 2, 2
    tensor([1.0000, 1.5000, 0.0000])

    Source: this project's own; the shrinkage is that of James, Stein, Estimation with quadratic loss, 1961.
    """
    import torch

    members = len(deltas)
    mean = uniform.mean(deltas)
    if members > 1:
        spread = torch.zeros_like(mean)
        for delta in deltas:
            spread += (delta / mean - 1.0).square()
        factor = (1.0 - divided(spread, members * (members - 1))).clamp_(min=0.0)
        mean = torch.where(mean == 0.0, 0.0, mean * factor)
    return Merged(mean, mean != 0.0)
