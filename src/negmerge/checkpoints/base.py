"""What every opened checkpoint offers, whatever its format."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from negmerge.checkpoints.dtypes import DType, Raw

if TYPE_CHECKING:
    from torch import Tensor

UNNAMEABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class OpenFile:
    """A file that a checkpoint holds open: its descriptor, bytes, and the span of each tensor that lies in it plainly.

    A span is first byte, end, and bytes of an element; `spans` gives them. `modified` is when it was last changed
    before it was opened, in nanoseconds.
    """

    path: Path
    descriptor: int
    size: int
    spans: Callable[[], Iterable[tuple[int, int, int]]]
    modified: int

    @cached_property
    def tensors(self) -> tuple[tuple[int, int, int], ...]:
        """The span of each tensor; only what hashes asks for them."""
        return tuple(self.spans())


class Checkpoint(Protocol):
    """Ordered names, and for each shape, dtype and a lazy read of the flattened tensor; a class per format."""

    path: Path  # the file or folder it was opened from, as messages name it
    files: tuple[Path, ...]  # the files that hold the weights
    names: tuple[str, ...]  # of all tensors, in the order of the file
    metadata: Mapping[str, str]  # free text that the file carries
    tied: Mapping[str, str]  # names that share the memory of an earlier one, and that one
    notes: tuple[str, ...] = ()  # what of the file was taken where it holds more than one model, each in one line

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        ...

    def dtype(self, name: str) -> DType:
        """Return the dtype of a tensor."""
        ...

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements start … stop of the flattened tensor as they are stored, as a new 1-D array."""
        ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> "Tensor":
        """Return elements start … stop of the flattened tensor, in its own dtype, as a new 1-D tensor of torch."""
        import torch

        return torch.from_numpy(self.raw(name, start, stop)).view(self.dtype(name).torch)

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return where the plain bytes of a tensor lie: file descriptor and offset, or −1 and an address in memory.

        None for a tensor that is not stored as its elements one after the other.
        """
        ...

    def opened(self) -> tuple[OpenFile, ...]:
        """Return the files that are held open; none where the elements are not read from where they lie."""
        return ()

    def close(self) -> None:
        """Release the file."""
        ...


def elements(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape; 1 for a scalar."""
    return math.prod(shape)


def is_name(name: str) -> bool:
    """Whether a tensor can be named so: at most 1,000 letters, none of them a control character or half a surrogate.

    Such names can be written into any header, and shown in a message of one line.
    """
    return len(name) <= 1000 and not UNNAMEABLE.search(name)
