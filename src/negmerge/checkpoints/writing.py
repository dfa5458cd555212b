"""Writing safetensors: piece by piece in any order, with bytes that depend on the content alone."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from negmerge.checkpoints.atomic import atomic_write
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import DType, Raw, of_torch
from negmerge.checkpoints.memory import stored

if TYPE_CHECKING:
    from torch import Tensor

Layout = Sequence[tuple[str, DType, tuple[int, ...]]]


class SafetensorsWriter:
    """Writes one safetensors file into an open file; the tensors may come in pieces, in any order, from threads.

    The data lie by falling size of an element, then in the order of `layout`, so that every tensor is aligned.
    """

    def __init__(self, file: BinaryIO, layout: Layout, metadata: Mapping[str, str] | None = None) -> None:
        self._descriptor = file.fileno()
        ordered = sorted(layout, key=lambda entry: -entry[1].itemsize)
        header: dict[str, object] = {}
        if metadata:
            header["__metadata__"] = dict(metadata)
        at = 0
        self._offsets: dict[str, int] = {}
        for name, dtype, shape in ordered:
            end = at + elements(shape) * dtype.itemsize
            header[name] = {"dtype": dtype.code, "shape": list(shape), "data_offsets": [at, end]}
            self._offsets[name] = at
            at = end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.data_start = 8 + len(text)
        self._write(len(text).to_bytes(8, "little") + text, 0)
        os.ftruncate(self._descriptor, self.data_start + at)

    def write(self, name: str, start: int, values: Raw) -> None:
        """Write elements of the flattened tensor `name` as they are stored, a 1-D array, from element `start` on."""
        if len(values):
            offset = self.data_start + self._offsets[name] + start * values.itemsize
            self._write(np.ascontiguousarray(values).view(np.uint8).data, offset)

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(self._descriptor)

    def replace_in_header(self, old: str, new: str) -> None:
        """Replace a text of the header by another of the same length, such as a hash by the one now known."""
        header = os.pread(self._descriptor, self.data_start, 0)
        if len(old) != len(new) or old.encode() not in header:
            raise ValueError(f"{old!r} is not in the header, or {new!r} is of another length")
        self._write(new.encode(), header.index(old.encode()))

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], offset + done)


def write_state_dict(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (on the CPU, any layout) as one safetensors file, whole or not at all; `path` is replaced."""
    layout = [(name, of_torch(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()]
    with atomic_write(Path(path)) as file:
        writer = SafetensorsWriter(file, layout, metadata)
        for name, tensor in tensors.items():
            writer.write(name, 0, stored(tensor.detach().reshape(-1)))
