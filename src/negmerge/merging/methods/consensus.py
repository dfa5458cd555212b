"""NegMerge: keep the elements on whose sign the members agree, and average those."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from negmerge.merging.averaging import divided
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "keep the elements whose sign all members share (or a share of them), average those"
REFERENCE = "Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583)"
REACH = "element"

Threshold = Annotated[
    float,
    Field(
        ge=0.5,
        le=1,
        description="share of the members that must agree; below one half both signs could win, which is no consensus",
    ),
]
Zeros = Annotated[
    Literal["veto", "abstain"], Field(description="a zero agrees with nobody, or leaves the vote to the others")
]


class Settings(MergeSettings):
    """When members agree, and whom the mean is taken over."""

    threshold: Threshold = 1.0
    mean: Literal["all", "agreeing"] = Field("all", description="over all members, or those with the winning sign")
    zeros: Zeros = "veto"


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by sign consensus.

        need = ⌈t·N⌉;  keep(j) where p(j) ≥ need or n(j) ≥ need, not both
        τ(j) = mean over i of τᵢ(j) where kept, else 0

    with p and n the number of members whose element is strictly positive or negative, t the threshold. t = 1 is the
    paper: all members share the sign.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the kept elements.
    Members are summed in their order.
    zeros: `veto`, a zero agrees with nobody; `abstain`, a zero does not vote: need = ⌈t·m⌉ of the m non-zero members,
    and m ≥ ⌈N/2⌉. Ties: where both signs reach the count (t = 0.5) nothing is kept.
    mean: `all` divides the sum over all members by N; `agreeing` averages only those with the winning sign.

    >>> import torch
    >>> merge(torch.tensor([[1.0, -1.0, 2.0], [3.0, 1.0, 0.0]]), Settings()).delta
    tensor([2., 0., 0.])

    Source: arXiv 2410.05583, equations 3 and 4; the disjoint mean is that of TIES (arXiv 2306.01708).
    """
    import torch

    positive, negative = winning_signs(deltas, settings.threshold, settings.zeros)
    kept = positive | negative
    total = torch.zeros_like(deltas[0])
    if settings.mean == "all":
        for delta in deltas:
            total += delta
        total = divided(total, len(deltas))
    else:
        count = torch.zeros_like(total)
        for delta in deltas:
            agrees = torch.where(positive, delta > 0, delta < 0)
            total += torch.where(agrees, delta, 0.0)
            count += agrees
        total /= count.clamp_(min=1.0)
    return Merged(torch.where(kept, total, 0.0), kept)


def winning_signs(deltas: Tensor, threshold: float, zeros: Literal["veto", "abstain"]) -> tuple[Tensor, Tensor]:
    """Return two masks [n]: where the positive sign wins, and where the negative does. Signs are counted in int32."""
    import torch

    members = len(deltas)
    positive = (deltas > 0).sum(0, dtype=torch.int32)
    negative = (deltas < 0).sum(0, dtype=torch.int32)
    if zeros == "veto":
        need = torch.full_like(positive, votes_needed(threshold, members))
        enough = torch.ones_like(positive, dtype=torch.bool)
    else:
        needs = [max(1, votes_needed(threshold, m)) for m in range(members + 1)]
        table = torch.tensor(needs, dtype=torch.int32, device=deltas.device)
        need = table[positive + negative]
        enough = positive + negative >= -(-members // 2)
    up, down = (positive >= need) & enough, (negative >= need) & enough
    return up & ~down, down & ~up


def votes_needed(threshold: float, voters: int) -> int:
    """Return ⌈t·m − 1e-9⌉: the votes needed, without the rounding of 0.6 · 5 to 4.

    >>> votes_needed(0.6, 5)
    3
    """
    return math.ceil(threshold * voters - 1e-9)
