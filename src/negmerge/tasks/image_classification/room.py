"""Room for decoded images: in memory while they are few, else in a file that the system may page out."""

import math
import tempfile

import numpy as np
import torch
from torch import Tensor

IN_MEMORY = 1 << 30  # bytes


def make_room(shape: tuple[int, ...]) -> Tensor:
    """Return an uninitialised uint8 tensor.

    Above 1 GiB it lies in a file without a name in the folder for temporary files ($TMPDIR), and goes with the last
    use of it: 65,000 images of 224 × 224 in colour are 9.8 GB, which need not be free memory.
    """
    if math.prod(shape) <= IN_MEMORY:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(prefix="negmerge-images-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="w+", shape=shape))
