"""Division that rounds alike on every device: what methods that average share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def divided(values: Tensor, number: float) -> Tensor:
    """Return values / number, each quotient rounded once; a new tensor of the same dtype.

    CUDA multiplies by the rounded reciprocal of a Python number, but divides by a number that is a tensor there.

    >>> import torch
    >>> divided(torch.tensor([1.0, 2.0]), 4)
    tensor([0.2500, 0.5000])
    """
    import torch

    return values / torch.full((), number, dtype=values.dtype, device=values.device)
