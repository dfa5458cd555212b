"""The plain mean of all task vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.averaging import divided
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "the mean of all task vectors, element by element"
REFERENCE = "Wortsman et al., Model Soups, ICML 2022 (arXiv 2203.05482)"
REACH = "element"


class Settings(MergeSettings):
    """There are none."""


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Return the mean of task vectors: τ(j) = Σᵢ τᵢ(j) / N.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Members are summed in their order, then
    divided by N; zeros count like any other value, and every element counts as kept.

    >>> import torch
    >>> merge(torch.tensor([[1.0, -1.0], [3.0, 1.0]]), Settings()).delta
    tensor([2., 0.])

    Source: arXiv 2203.05482, applied to task vectors as in arXiv 2212.04089.
    """
    return Merged(mean(deltas))


def mean(deltas: Tensor) -> Tensor:
    """Return the mean [n] of deltas [N, n], summed in their order."""
    import torch

    total = torch.zeros_like(deltas[0])
    for delta in deltas:
        total += delta
    return divided(total, len(deltas))
