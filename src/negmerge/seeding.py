"""Seeds of the parts of a run, each independent of the others, and modules made from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def derive_seed(seed: int, *parts: int | str) -> int:
    """Return a seed for a part of a run, independent of the seeds of the other parts.

    >>> derive_seed(0, "split") != derive_seed(0, "base")
    True
    """
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return the module that `make` makes on the CPU under a seed; all global generators are as before."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
        return make()
