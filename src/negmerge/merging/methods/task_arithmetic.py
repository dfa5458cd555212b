"""Plain task arithmetic: one member's task vector as it is."""

from torch import Tensor

from negmerge.errors import InputError

SUMMARY = "one member's task vector as it is"
REFERENCE = "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023 (arXiv 2212.04089)"
REACH = "element"


def merge(deltas: Tensor) -> Tensor:
    """Return the only task vector: τ = τ₁.

    deltas: [1, n], float32 or float64; the result is a new tensor [n] of the same dtype; zeros stay zeros.

    Raises InputError for more than one member.

    >>> import torch
    >>> merge(torch.tensor([[1.0, -2.0]]))
    tensor([ 1., -2.])

    Source: arXiv 2212.04089.
    """
    if len(deltas) != 1:
        raise InputError(f"task-arithmetic takes one member, got {len(deltas)}; merge several by consensus or uniform")
    return deltas[0].clone()
