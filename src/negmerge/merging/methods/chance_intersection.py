"""A control: the consensus of coins in the place of signs."""

import torch
from torch import Tensor

from negmerge.merging.methods import WHOLE, Place, uniform
from negmerge.merging.methods._drawing import coins
from negmerge.merging.methods.consensus import winning_signs

SUMMARY = "control: the mean where N fair coins agree, as if the members' signs were independent"
REFERENCE = "the intersection by chance, 2^(1−N) of the elements, beside Kim, Han, Choe, NegMerge (arXiv 2410.05583)"
REACH = "element"
RANDOM = True


def merge(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    threshold: float = 1.0,
) -> Tensor:
    """Average task vectors where independent fair coins reach a consensus.

        sᵢ(j) = ±1 with equal probability;  keep(j) by consensus(s; threshold);  τ(j) = Σᵢ τᵢ(j) / N where kept, else 0

    keeps 2^(1−N) of the elements at threshold 1: what the intersection of signs would let through if fine-tunings had
    nothing in common.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. The coins are drawn by the seed, the
    member, the tensor and the element's index alone; zeros have a coin like any other value.

    Raises InputError for a threshold that `consensus` refuses.

    >>> merge(torch.ones(2, 6)).unique().tolist()
    [0.0, 1.0]

    Source: a control of this project's own.
    """
    return merge_with_mask(deltas, place=place, threshold=threshold)[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    threshold: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the boolean mask [n] of the elements on which the coins agree."""
    members, size = deltas.shape
    signs = torch.stack([coins(place, i, size, 0.5) for i in range(members)]).to(deltas.device)
    up, down = winning_signs(signs.to(torch.int8) * 2 - 1, threshold, "veto")
    kept = up | down
    return torch.where(kept, uniform.merge(deltas), 0.0), kept
