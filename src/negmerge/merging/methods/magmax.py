"""MagMax: of each element, the entry of largest magnitude."""

import torch
from torch import Tensor

SUMMARY = "of each element the entry of largest magnitude among the task vectors"
REFERENCE = "Marczak et al., MagMax, ECCV 2024 (arXiv 2407.06322)"
REACH = "element"


def merge(deltas: Tensor) -> Tensor:
    """Merge task vectors by the largest magnitude: τ(j) = τᵢ*(j), i* = argmaxᵢ |τᵢ(j)|.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Of equal magnitudes with opposite signs the
    earliest member's is taken. Zeros are smaller than anything else.

    >>> merge(torch.tensor([[1.0, -2.0, 3.0], [-4.0, 1.0, -3.0]]))
    tensor([-4., -2.,  3.])

    Source: arXiv 2407.06322, equation 3.
    """
    largest = deltas[0].clone()
    for delta in deltas[1:]:
        largest = torch.where(delta.abs() > largest.abs(), delta, largest)
    return largest
