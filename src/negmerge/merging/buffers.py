"""Running statistics of batch normalisation in a merge: kept as the base's, or merged like weights."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Policy = Literal["keep", "negate"]

STATISTICS = re.compile(r"(^|\.)running_(mean|var)$")
VARIANCE = re.compile(r"(^|\.)running_var$")
LEAST_VARIANCE = 1e-5  # torch adds an eps of as much before it takes the root


def least_values(names: Iterable[str]) -> dict[str, float]:
    """Return the number below which a merged tensor must not fall, for those of the names that are variances.

    >>> least_values(["bn.running_mean", "bn.running_var"])
    {'bn.running_var': 1e-05}
    """
    return {name: LEAST_VARIANCE for name in names if VARIANCE.search(name)}


def negated(name: str, base: "Tensor", delta: "Tensor", alpha: float) -> "Tensor":
    """Return θ₀ − α·τ of the tensor `name` as `apply_delta` does, a variance held at 1e-5 or above unless α is 0.

    >>> import torch
    >>> negated("bn.running_var", torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]), 1.0)
    tensor([1.0000e-05, 1.0000e+00])
    """
    from negmerge.merging.applying import apply_delta

    moved = apply_delta(base, delta, alpha)
    return moved.clamp(min=LEAST_VARIANCE) if alpha and VARIANCE.search(name) else moved
