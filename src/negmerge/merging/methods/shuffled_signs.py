"""A control: the consensus with its signs tossed."""

from typing import Literal

import torch
from torch import Tensor

from negmerge.merging.methods import WHOLE, Place, consensus
from negmerge.merging.methods._drawing import coins

SUMMARY = "control: the consensus with the sign of every kept element tossed anew"
REFERENCE = "Kim, Han, Choe, NegMerge (arXiv 2410.05583), with its signs replaced by fair coins"
REACH = "element"
RANDOM = True


def merge(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    threshold: float = 1.0,
    mean: Literal["all", "agreeing"] = "all",
    zeros: Literal["veto", "abstain"] = "veto",
) -> Tensor:
    """Merge by consensus, then toss every sign: τ(j) = s(j)·consensus(τ₁ … τ_N)(j), s(j) = ±1 with equal probability.

    Same elements, same magnitudes, no direction: what this forgets is the noise of a step of that size.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. s is drawn by the seed, the tensor and the
    element's index alone.

    Raises InputError for what `consensus` refuses.

    >>> merge(torch.full((2, 6), 3.0)).abs()
    tensor([3., 3., 3., 3., 3., 3.])

    Source: a control of this project's own.
    """
    return merge_with_mask(deltas, place=place, threshold=threshold, mean=mean, zeros=zeros)[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    threshold: float = 1.0,
    mean: Literal["all", "agreeing"] = "all",
    zeros: Literal["veto", "abstain"] = "veto",
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the boolean mask [n] of the kept elements."""
    merged, kept = consensus.merge_with_mask(deltas, threshold=threshold, mean=mean, zeros=zeros)
    flipped = coins(place, 0, deltas.shape[1], 0.5).to(deltas.device)
    return torch.where(flipped, -merged, merged), kept
