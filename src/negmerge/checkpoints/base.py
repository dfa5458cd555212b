"""What every opened checkpoint offers, whatever its format."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

UNNAMEABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Checkpoint(Protocol):
    """Ordered names, and for each shape, dtype and a lazy read of the flattened tensor.

    `tied` maps a name to the earlier one whose memory it shares (only formats that can say so).
    """

    @property
    def path(self) -> Path:
        """The file or folder it was opened from."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the weights."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors, in the order of the file."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """Free text that the file carries."""
        ...

    @property
    def tied(self) -> Mapping[str, str]:
        """Names that share the memory of another."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements start … stop of the flattened tensor, in its own dtype, as a new 1-D tensor."""
        ...

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return where the plain bytes of a tensor lie: file descriptor and offset, or −1 and an address in memory.

        None for a tensor that is not stored as its elements one after the other.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def elements(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape; 1 for a scalar."""
    count = 1
    for size in shape:
        count *= size
    return count


def is_name(name: str) -> bool:
    """Whether a tensor can be named so: at most 1,000 letters, none of them a control character or half a surrogate.

    Such names can be written into any header, and shown in a message of one line.
    """
    return len(name) <= 1000 and not UNNAMEABLE.search(name)
