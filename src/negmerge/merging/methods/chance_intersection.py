"""A control: the consensus of coins in the place of signs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from negmerge.merging.drawing import coins
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.methods import uniform
from negmerge.merging.methods.consensus import Threshold, winning_signs

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "control: the mean where N fair coins agree, as if the members' signs were independent"
REFERENCE = "the intersection by chance, 2^(1−N) of the elements, beside Kim, Han, Choe, NegMerge (arXiv 2410.05583)"
REACH = "element"
RANDOM = True


class Settings(MergeSettings):
    """When coins agree."""

    threshold: Threshold = 1.0


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Average task vectors where independent fair coins reach a consensus.

        sᵢ(j) = ±1 with equal probability;  keep(j) by consensus(s; threshold);  τ(j) = Σᵢ τᵢ(j) / N where kept, else 0

    keeps 2^(1−N) of the elements at threshold 1: the share that the intersection of signs would let through if the
    fine-tunings had nothing in common.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the elements on which
    the coins agree. The coins are drawn by the seed, the member, the tensor and the element's index alone; zeros have a
    coin like any other value. Ties: where both sides reach the count (threshold 0.5) nothing is kept.

    >>> import torch
    >>> merge(torch.ones(2, 6), Settings()).delta.unique().tolist()
    [0.0, 1.0]

    Source: a control of this project's own.
    """
    import torch

    members, size = deltas.shape
    signs = torch.stack([coins(place, i, size, 0.5) for i in range(members)]).to(deltas.device)
    up, down = winning_signs(signs.to(torch.int8) * 2 - 1, settings.threshold, "veto")
    kept = up | down
    return Merged(torch.where(kept, uniform.mean(deltas), 0.0), kept)
