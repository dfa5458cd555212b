"""The one place where merged vectors meet the weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from negmerge.checkpoints.dtypes import BFLOAT16, FLOAT16, DType, Raw, from_floats, is_finite, to_floats
from negmerge.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
HALVES = (BFLOAT16, FLOAT16)


def apply_delta(
    base: "Tensor", delta: "Tensor", alpha: float, add: bool = False, dtype: "torch.dtype | None" = None
) -> "Tensor":
    """Return θ₀ − α·τ, or θ₀ + α·τ with `add`, for weights and a merged vector of the same shape.

    Computed in float32 (float64 for float64 weights) and cast once, to the dtype of `base` unless another is given.

    >>> import torch
    >>> apply_delta(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), 2.0)
    tensor([0., 2.])
    """
    import torch

    wide = torch.float64 if base.dtype == torch.float64 else torch.float32
    step = delta.to(wide) * alpha
    origin = base.to(wide)
    return (origin + step if add else origin - step).to(dtype or base.dtype)


def add_step(origin: Floats, delta: Floats, alpha: float, add: bool) -> Floats:
    """Return θ − α·τ (θ + α·τ with `add`) of float32 or float64 numbers: the bits of `apply_delta` before its cast."""
    with np.errstate(over="ignore", invalid="ignore"):  # found by the check of the range
        step = delta.astype(origin.dtype, copy=False) * origin.dtype.type(alpha)
        return origin + step if add else origin - step


def range_error(name: str, dtype: DType, alpha: float) -> InputError:
    """Return the error of a tensor whose result left the range of its dtype."""
    return InputError(
        f"tensor {name}: the result with alpha {alpha:g} leaves the range of {dtype}; "
        "choose a smaller alpha or another --dtype"
    )


@dataclass(frozen=True)
class Outlet:
    """Where merged elements go: `write(name, start, values)` takes them as they are stored in `dtype(name)`.

    Where OUT is `hashed`, `write` also takes the digests [pieces, 32] of the pieces of the hash of these values, where
    they are known. With `vector` they are τ itself, in the dtype of the arithmetic; with `by_term` those of each term,
    and `write` takes its place among the terms as well. `at_least` holds tensors above a number, such as variances;
    `alpha` stands in messages.
    """

    dtype: Callable[[str], DType]
    write: Callable[..., None]
    vector: bool = False
    by_term: bool = False
    hashed: bool = False
    at_least: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 1.0

    def put(self, name: str, start: int, base: Raw, base_dtype: DType, values: Floats, step: Floats) -> Floats:
        """Write what `values` are in the dtype of OUT, and return the effect of the piece.

        `step` is what was added to the base's weights; the effect is that of `effect_of`. Raises InputError where the
        values leave the range of the dtype.
        """
        dtype = self.dtype(name)
        if name in self.at_least:
            values = np.maximum(values, values.dtype.type(self.at_least[name]))
        out = from_floats(values, dtype)
        if not is_finite(out, dtype):
            raise range_error(name, dtype, self.alpha)
        self.write(name, start, out)
        return effect_of(to_floats(base, base_dtype), step, values, out, dtype)


def no_effect() -> Floats:
    """Return the effect of no element, float64 [5]: see effect_of."""
    return np.zeros(5)


def effect_of(origin: Floats, step: Floats, values: Floats, out: Raw, dtype: DType) -> Floats:
    """Return the effect of a piece on OUT: float64 [5], which adds up over pieces.

    Elements of OUT that changed beside α = 0, Σ step², Σ θ₀², Σ (what OUT holds − values)², and Σ 4^⌊log₂|θ|⌋ over the
    elements that have a step, θ being OUT's at α = 0; the last is 0 unless OUT is of a half type.
    """
    written, before = to_floats(out, dtype), to_floats(from_floats(origin, dtype), dtype)
    moved = before[step != 0] if dtype in HALVES else before[:0]
    powers = (np.abs(moved).view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
    return np.array(
        [
            np.count_nonzero(written != before),
            _squares(step),
            _squares(origin),
            _squares(written.astype(np.float64) - values),
            _squares(powers),
        ]
    )


def _squares(values: Floats) -> float:
    exact = values.astype(np.float64, copy=False).reshape(-1)
    return float(np.sum(exact * exact))  # not BLAS, whose threads would decide the order
