"""A control: the mean at random elements, as many as the consensus would keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.drawing import coins
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.methods import uniform
from negmerge.merging.methods.consensus import Threshold, Zeros, winning_signs
from negmerge.merging.trimming import Scope

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "control: the mean at random elements, of the density that the consensus has in each tensor"
REFERENCE = "the random mask of equal sparsity beside Kim, Han, Choe, NegMerge (arXiv 2410.05583)"
REACH = "statistics"
RANDOM = True


class Settings(MergeSettings):
    """Of which consensus the density is, counted where."""

    scope: Scope = "tensor"
    threshold: Threshold = 1.0
    zeros: Zeros = "veto"


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Average task vectors at random elements.

        τ(j) = m(j)·Σᵢ τᵢ(j) / N,  m(j) ~ Bernoulli(c);  c = the share that consensus(threshold, zeros) keeps

    of the elements of a tensor (scope="tensor"), or of all merged tensors together (scope="model"). Only the density of
    the consensus is left here: a method that does no better than this has not gained by looking at signs.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] that was drawn.
    `statistic` is the share c, []. m is drawn by the seed, the tensor and the element's index alone, so the density is
    met on average. Zeros and ties count as in `consensus`.

    >>> import torch
    >>> merge(torch.ones(2, 4), Settings()).delta
    tensor([1., 1., 1., 1.])

    Source: a control of this project's own.
    """
    import torch

    size = deltas.shape[1]
    share = count(deltas, settings) / max(1, size) if statistic is None else float(statistic)
    kept = coins(place, 0, size, share).to(deltas.device)
    return Merged(torch.where(kept, uniform.mean(deltas), 0.0), kept)


def count(deltas: Tensor, settings: Settings) -> int:
    """Return how many elements the consensus would keep."""
    import torch

    up, down = winning_signs(deltas, settings.threshold, settings.zeros)
    return int(torch.count_nonzero(up | down))
