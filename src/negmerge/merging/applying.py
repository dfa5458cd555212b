"""The one place where a merged vector meets the weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from negmerge.checkpoints.dtypes import DType, Raw
from negmerge.checkpoints.memory import stored
from negmerge.errors import InputError


def apply_delta(
    base: Tensor, delta: Tensor, alpha: float, add: bool = False, dtype: torch.dtype | None = None
) -> Tensor:
    """Return θ₀ − α·τ, or θ₀ + α·τ with `add`, for weights and a merged vector of the same shape.

    Computed in float32 (float64 for float64 weights) and cast once, to the dtype of `base` unless another is given.

    >>> apply_delta(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), 2.0)
    tensor([0., 2.])
    """
    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    step = delta.to(wide) * alpha
    origin = base.to(wide)
    return (origin + step if add else origin - step).to(dtype or base.dtype)


def check_alpha(alpha: float) -> None:
    """Raise InputError unless α is finite."""
    if not math.isfinite(alpha):
        raise InputError(f"alpha must be a finite number, got {alpha}")


def check_range(name: str, values: Tensor, alpha: float) -> None:
    """Raise InputError where the result of a tensor left the range of its dtype."""
    if not torch.isfinite(values).all():
        raise InputError(
            f"tensor {name}: the result with alpha {alpha:g} leaves the range of {values.dtype}; "
            "choose a smaller alpha or another --dtype"
        )


@dataclass(frozen=True)
class Outlet:
    """What becomes of a merged chunk: τ itself, or θ₀ ∓ α·τ in the dtype of the output, handed to `write`."""

    operation: Literal["delta", "subtract", "add"]
    dtype: Callable[[str], DType]
    write: Callable[[str, int, Raw], None]
    alpha: float = 1.0

    def put(self, name: str, start: int, base: Tensor, delta: Tensor) -> None:
        """Write what becomes of a chunk of τ. Raises InputError where it leaves the range of the dtype."""
        if self.operation == "delta":
            self.write(name, start, stored(delta))
            return
        values = apply_delta(base, delta, self.alpha, self.operation == "add", self.dtype(name).torch)
        check_range(name, values, self.alpha)
        self.write(name, start, stored(values))

    def put_ready(self, name: str, start: int, values: Tensor) -> None:
        """Write finite values that only lack the cast to the dtype of the output, and the check of its range."""
        cast = values.to(self.dtype(name).torch)
        if cast.dtype != values.dtype:
            check_range(name, cast, self.alpha)
        self.write(name, start, stored(cast))
