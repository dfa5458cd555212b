"""Trimmed mean: of each element the mean without its smallest and its largest entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from negmerge.merging.averaging import divided
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "of each element the mean without its smallest and its largest entries: robust to a few bad members"
REFERENCE = "Yin, Chen, Ramchandran, Bartlett, Byzantine-robust distributed learning, ICML 2018 (arXiv 1803.01498)"
REACH = "element"


class Settings(MergeSettings):
    """How much is cut."""

    trim: float = Field(0.2, ge=0, lt=0.5, description="share of the members that is cut at either end; 0 is the mean")


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by the mean of each element's middle entries.

        τ(j) = Σᵢ τ₍ᵢ₎(j) / (N − 2k), i = k + 1 … N − k;  k = ⌊trim·N + 1e-9⌋

    with τ₍₁₎(j) ≤ … ≤ τ₍N₎(j) the entries of element j by size. So k members may be anything at either end without
    moving an element beyond the others.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, and every element counts as kept. Entries
    are summed in pairs from both ends, so that −τᵢ give −τ. A zero is a value like any other; ties do not
    matter. Fewer members than 1 / trim cut nothing: the mean.

    >>> import torch
    >>> merge(torch.tensor([[1.0], [2.0], [3.0], [100.0]]), Settings(trim=0.25)).delta
    tensor([2.5000])

    Source: arXiv 1803.01498, definition 2.
    """
    members = len(deltas)
    return Merged(middle(deltas, int(settings.trim * members + 1e-9)))


def middle(deltas: Tensor, cut: int) -> Tensor:
    """Return the mean [n] of each element's entries without the `cut` smallest and the `cut` largest; cut < N / 2."""
    import torch

    entries = deltas.sort(0).values[cut : len(deltas) - cut]
    total = torch.zeros_like(deltas[0])
    for i in range(len(entries) // 2):
        total += entries[i] + entries[-1 - i]
    if len(entries) % 2:
        total += entries[len(entries) // 2]
    return divided(total, len(entries))
