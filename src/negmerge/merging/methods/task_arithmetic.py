"""Task arithmetic: one member's task vector as it is, or a weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from negmerge.errors import InputError
from negmerge.merging.method import PER_MEMBER, WHOLE, Merged, MergeSettings, Place

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "one member's task vector as it is, or the weighted sum of several"
REFERENCE = "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023 (arXiv 2212.04089)"
REACH = "element"


class Settings(MergeSettings):
    """The weights of the sum; one member needs none."""

    weights: Annotated[
        Sequence[float] | None,
        PER_MEMBER,
        Field(description="one for each member, in the order in which they are given"),
    ] = None

    def check_members(self, members: int) -> None:
        """Raise InputError for several members without weights, or another number of weights than of members."""
        if self.weights is None and members != 1:
            raise InputError(
                f"it takes one member, or one weight for each, got {members} members; "
                "give weights=[…], or merge by consensus or uniform"
            )
        super().check_members(members)


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Return the weighted sum of task vectors: τ(j) = Σᵢ wᵢ·τᵢ(j); without weights the only task vector, τ = τ₁.

    deltas: [N, n], float32 or float64; the result is a new tensor [n] of the same dtype. Members are summed in their
    order. `weights` are N finite numbers, in the order in which the members are given; they may be negative. Zeros
    count like any other value, and every element counts as kept.

    Raises InputError for several members without weights, and another number of weights than of members.

    >>> import torch
    >>> merge(torch.tensor([[1.0, 2.0], [4.0, 0.0]]), Settings(weights=[1.0, -0.5])).delta
    tensor([-1.,  2.])

    Source: arXiv 2212.04089.
    """
    import torch

    settings.check_members(len(deltas))
    if settings.weights is None:
        return Merged(deltas[0].clone())
    total = torch.zeros_like(deltas[0])
    for delta, factor in zip(deltas, settings.weights, strict=True):
        total += factor * delta
    return Merged(total)
