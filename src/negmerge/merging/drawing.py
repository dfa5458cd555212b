"""Random numbers that hang on where an element lies, not on the order in which chunks come."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from negmerge.merging.method import Place

if TYPE_CHECKING:
    from torch import Tensor

WORDS = 4  # that Philox draws for each count


def uniform(place: Place, stream: int, count: int) -> Tensor:
    """Return `count` numbers from [0, 1), float64, for the elements from `place.start` on.

    Philox4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011) with the first 16 bytes of
    sha256(seed, stream, tensor) as its key and the index of the element as its counter; `stream` tells members apart.
    """
    import numpy as np
    import torch

    text = f"{place.seed}\0{stream}\0{place.tensor}".encode()
    key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
    first, skip = divmod(place.start, WORDS)
    words = np.random.Philox(key=key, counter=first).random_raw(skip + count)[skip:]
    return torch.from_numpy((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def coins(place: Place, stream: int, count: int, share: float) -> Tensor:
    """Return a mask [count], on the CPU, in which each element is true with probability `share`, independently."""
    return uniform(place, stream, count) < share
