"""A control: the consensus with its signs tossed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.drawing import coins
from negmerge.merging.method import WHOLE, Merged, Place
from negmerge.merging.methods import consensus

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "control: the consensus with the sign of every kept element tossed anew"
REFERENCE = "Kim, Han, Choe, NegMerge (arXiv 2410.05583), with its signs replaced by fair coins"
REACH = "element"
RANDOM = True


class Settings(consensus.Settings):
    """Those of the consensus."""


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge by consensus, then toss every sign: τ(j) = s(j)·consensus(τ₁ … τ_N)(j), s(j) = ±1 with equal probability.

    Same elements, same magnitudes, no direction: the forgetting that is left is due to the noise of a step of that
    size.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the kept elements. s
    is drawn by the seed, the tensor and the element's index alone. Zeros and ties count as in `consensus`.

    >>> import torch
    >>> merge(torch.full((2, 6), 3.0), Settings()).delta.abs()
    tensor([3., 3., 3., 3., 3., 3.])

    Source: a control of this project's own.
    """
    import torch

    merged, kept = consensus.merge(deltas, settings)
    flipped = coins(place, 0, deltas.shape[1], 0.5).to(deltas.device)
    return Merged(torch.where(flipped, -merged, merged), kept)
