"""The one place where a merged vector meets the weights."""

import math

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.merging.streaming import work_dtype


def apply_delta(
    base: Tensor, delta: Tensor, alpha: float, add: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    """Return θ₀ − α·τ, or θ₀ + α·τ with `add`, for weights and a merged vector of the same shape.

    Computed in float32 (float64 for float64 weights) and cast once, to the dtype of `base` unless another is given.

    >>> apply_delta(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), 2.0)
    tensor([0., 2.])
    """
    exact = work_dtype(base.dtype)
    step = delta.to(exact) * alpha
    origin = base.to(exact)
    return (origin + step if add else origin - step).to(dtype or base.dtype)


def check_alpha(alpha: float) -> None:
    """Raise InputError unless α is finite."""
    if not math.isfinite(alpha):
        raise InputError(f"alpha must be a finite number, got {alpha}")
