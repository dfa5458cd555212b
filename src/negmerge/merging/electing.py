"""Electing a sign for every element, and averaging those who voted for it: what TIES and majority-sign share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

ElectBy = Annotated[
    Literal["mass", "count"], Field(description="a sign wins by the sum of its members, or by their number")
]


def elect(deltas: Tensor, by: Literal["mass", "count"]) -> Tensor:
    """Return the elected sign [n] of each element: −1, 0 or 1.

    `mass`: the sign of Σᵢ τᵢ(j), members summed in their order; `count`: the sign that more members have. A tie elects
    0, which nobody has.
    """
    import torch

    total = torch.zeros_like(deltas[0])
    for delta in deltas:
        total += delta if by == "mass" else delta.sign()
    return total.sign()


def disjoint_mean(deltas: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [n] of those elements that have the elected sign, and the mask [n] of where there are any.

    Zeros belong to no sign; where nobody has the elected sign the mean is 0.
    """
    import torch

    total = torch.zeros_like(deltas[0])
    voters = torch.zeros_like(total)
    for delta in deltas:
        agrees = (delta.sign() == sign) & (sign != 0)
        total += torch.where(agrees, delta, 0.0)
        voters += agrees
    return total / voters.clamp(min=1.0), voters > 0
