"""Writing safetensors: piece by piece in any order, with bytes that depend on the content alone."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from negmerge.checkpoints.atomic import atomic_write, begin_write_back
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import DType, Raw, of_torch
from negmerge.checkpoints.memory import stored
from negmerge.checkpoints.pieces import ELEMENTS, PieceHash, view_of

if TYPE_CHECKING:
    from torch import Tensor

WRITE_BACK = 2**24  # bytes after which the disk is told to begin, so that the last sync has little to wait for

Layout = Sequence[tuple[str, DType, tuple[int, ...]]]


class SafetensorsWriter:
    """Writes one safetensors file into an open file; the tensors may come in pieces, in any order, from threads.

    The data lie by falling size of an element, then in the order of `layout`, so that every tensor is aligned.
    """

    def __init__(
        self, file: BinaryIO, layout: Layout, metadata: Mapping[str, str] | None = None, hashed: bool = False
    ) -> None:
        self._descriptor = file.fileno()
        ordered = in_file_order(layout)
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
        self._dirty = 0
        self._write(len(text).to_bytes(8, "little") + text, 0)
        size = self.data_start + at
        os.ftruncate(self._descriptor, size)
        self._hash: PieceHash | None = None
        if hashed:
            places = {name: self.data_start + begin for name, begin in self._offsets.items()}
            spans = [(places[name], places[name] + elements(s) * d.itemsize, d.itemsize) for name, d, s in ordered]
            self._hash = PieceHash(Path(str(file.name)), self._descriptor, size, spans, self.data_start)

    def write(self, name: str, start: int, values: Raw, digests: Raw | None = None) -> None:
        """Write elements of the flattened tensor `name` as they are stored, a 1-D array, from element `start` on.

        `digests`, [pieces, 32], are those of their pieces of the hash, if they are known: else they are taken here.
        """
        if len(values):
            begin, offset = self.data_start + self._offsets[name], start * values.itemsize
            data = view_of(np.ascontiguousarray(values))
            if self._hash is not None and digests is not None and start % ELEMENTS == 0:
                self._hash.put_run(begin, offset, len(data), digests)
            elif self._hash is not None:
                self._hash.put(begin, offset, data)
            self._write(data, begin + offset)

    def data_hash(self) -> str:
        """Return the tree hash of all tensors, without the header; the file must be `hashed`."""
        if self._hash is None:
            raise ValueError("the file was not opened to be hashed")
        return self._hash.finish()

    def replace_in_header(self, texts: Mapping[str, str]) -> None:
        """Replace texts of the header by others of the same length, such as hashes by those that are now known."""
        header = os.pread(self._descriptor, self.data_start, 0)
        for old, new in texts.items():
            if len(old) != len(new):
                raise ValueError(f"{new!r} is not as long as {old!r}")
            header = header.replace(old.encode(), new.encode())
        self._write(header, 0)

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, data[done:], offset + done)
        self._dirty += len(data)
        if self._dirty >= WRITE_BACK:  # two threads may both begin: nothing is lost by it
            self._dirty = 0
            begin_write_back(self._descriptor)


def in_file_order(layout: Layout) -> Layout:
    """Return tensors in the order in which they lie in a file: by falling size of an element, then as given."""
    return sorted(layout, key=lambda entry: -entry[1].itemsize)


def write_state_dict(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (on the CPU, any layout) as one safetensors file, whole or not at all; `path` is replaced."""
    layout = [(name, of_torch(tensor.dtype), tuple(tensor.shape)) for name, tensor in tensors.items()]
    with atomic_write(Path(path)) as file:
        writer = SafetensorsWriter(file, layout, metadata)
        for name, tensor in tensors.items():
            writer.write(name, 0, stored(tensor.detach().reshape(-1)))
