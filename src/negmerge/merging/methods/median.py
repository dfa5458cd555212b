"""Median: of each element the middle entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.methods import trimmed_mean

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "of each element the middle entry: holds while fewer than half of the members are bad"
REFERENCE = "Yin, Chen, Ramchandran, Bartlett, Byzantine-robust distributed learning, ICML 2018 (arXiv 1803.01498)"
REACH = "element"


class Settings(MergeSettings):
    """There are none."""


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by the median of each element: τ(j) = τ₍ₘ₎(j), m = (N + 1) / 2; of an even N the mean of two.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, and every element counts as kept. A zero is
    a value like any other; ties do not matter. N = 1: τ = τ₁; N = 2: the mean.

    >>> import torch
    >>> merge(torch.tensor([[1.0, 1.0], [2.0, -5.0], [100.0, 0.0]]), Settings()).delta
    tensor([2., 0.])

    Source: arXiv 1803.01498, definition 1.
    """
    return Merged(trimmed_mean.middle(deltas, (len(deltas) - 1) // 2))
