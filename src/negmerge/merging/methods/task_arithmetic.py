"""Task arithmetic: one member's task vector as it is, or a weighted sum."""

from collections.abc import Sequence

import torch
from torch import Tensor

from negmerge.errors import InputError

SUMMARY = "one member's task vector as it is, or the weighted sum of several"
REFERENCE = "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023 (arXiv 2212.04089)"
REACH = "element"
PER_MEMBER = ("weights",)


def merge(deltas: Tensor, *, weights: Sequence[float] | None = None) -> Tensor:
    """Return the weighted sum of task vectors: τ(j) = Σᵢ wᵢ·τᵢ(j); without weights the only task vector, τ = τ₁.

    deltas: [N, n], float32 or float64; the result is a new tensor [n] of the same dtype. Members are summed in their
    order. `weights` are N finite numbers, in the order in which the members are given; they may be negative.

    Raises InputError for several members without weights, and weights that are not N finite numbers.

    >>> merge(torch.tensor([[1.0, -2.0]])), merge(torch.tensor([[1.0, 2.0], [4.0, 0.0]]), weights=[1.0, -0.5])
    (tensor([ 1., -2.]), tensor([-1.,  2.]))

    Source: arXiv 2212.04089.
    """
    if weights is None:
        if len(deltas) != 1:
            raise InputError(
                f"task-arithmetic takes one member, or one weight for each, got {len(deltas)} members; "
                "give weights=[…], or merge by consensus or uniform"
            )
        return deltas[0].clone()
    factors = _checked(weights, len(deltas))
    total = torch.zeros_like(deltas[0])
    for delta, factor in zip(deltas, factors, strict=True):
        total += factor * delta
    return total


def _checked(weights: Sequence[float], members: int) -> list[float]:
    if not isinstance(weights, list | tuple) or len(weights) != members:
        raise InputError(f"weights must be a list of {members} numbers, one for each member, got {weights!r}")
    for weight in weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not torch.isfinite(torch.tensor(float(weight))):
            raise InputError(f"weights must be finite numbers, got {weight!r}")
    return [float(weight) for weight in weights]
