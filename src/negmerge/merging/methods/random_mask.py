"""A control: the mean at random elements, as many as the consensus would keep."""

from typing import Literal

import torch
from torch import Tensor

from negmerge.merging.methods import WHOLE, Place, uniform
from negmerge.merging.methods._drawing import coins
from negmerge.merging.methods._trimming import check_scope
from negmerge.merging.methods.consensus import winning_signs

SUMMARY = "control: the mean at random elements, of the density that the consensus has in each tensor"
REFERENCE = "the random mask of equal sparsity beside Kim, Han, Choe, NegMerge (arXiv 2410.05583)"
REACH = "statistics"
RANDOM = True


def merge(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    statistic: Tensor | None = None,
    scope: Literal["tensor", "model"] = "tensor",
    threshold: float = 1.0,
    zeros: Literal["veto", "abstain"] = "veto",
) -> Tensor:
    """Average task vectors at random elements.

        τ(j) = m(j)·Σᵢ τᵢ(j) / N,  m(j) ~ Bernoulli(c);  c = the share that consensus(threshold, zeros) keeps

    of the elements of the tensor, or of all merged ones with scope="model". What is left of the consensus here is its
    density alone: a method that does no better than this has not gained by looking at signs.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. m is drawn by the seed, the tensor and the
    element's index alone, so the density is met on average.

    Raises InputError for what `consensus` refuses.

    >>> merge(torch.ones(2, 4))
    tensor([1., 1., 1., 1.])

    Source: a control of this project's own.
    """
    return merge_with_mask(deltas, place=place, statistic=statistic, scope=scope, threshold=threshold, zeros=zeros)[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    statistic: Tensor | None = None,
    scope: Literal["tensor", "model"] = "tensor",
    threshold: float = 1.0,
    zeros: Literal["veto", "abstain"] = "veto",
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the boolean mask [n] that was drawn."""
    size = deltas.shape[1]
    if statistic is None:
        share = count(deltas, scope=scope, threshold=threshold, zeros=zeros) / max(1, size)
    else:
        share = float(statistic)
    kept = coins(place, 0, size, share).to(deltas.device)
    return torch.where(kept, uniform.merge(deltas), 0.0), kept


def count(
    deltas: Tensor, *, scope: str = "tensor", threshold: float = 1.0, zeros: Literal["veto", "abstain"] = "veto"
) -> int:
    """Return how many elements the consensus would keep."""
    check_scope(scope)
    up, down = winning_signs(deltas, threshold, zeros)
    return int(torch.count_nonzero(up | down))
