"""MagMax: of each element, the entry of largest magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "of each element the entry of largest magnitude among the task vectors"
REFERENCE = "Marczak et al., MagMax, ECCV 2024 (arXiv 2407.06322)"
REACH = "element"


class Settings(MergeSettings):
    """There are none."""


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by the largest magnitude: τ(j) = τᵢ*(j), i* = argmaxᵢ |τᵢ(j)|.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, and every element counts as kept. Of equal
    magnitudes with opposite signs the earliest member's is taken. Zeros are smaller than anything else.

    >>> import torch
    >>> merge(torch.tensor([[1.0, -2.0, 3.0], [-4.0, 1.0, -3.0]]), Settings()).delta
    tensor([-4., -2.,  3.])

    Source: arXiv 2407.06322, equation 3.
    """
    import torch

    largest = deltas[0].clone()
    for delta in deltas[1:]:
        largest = torch.where(delta.abs() > largest.abs(), delta, largest)
    return Merged(largest)
