"""safetensors, read with a header check that believes nothing.

Format: 8 bytes, little-endian, the length of the header; the header, a JSON object
name → {dtype, shape, data_offsets}; the data.
https://huggingface.co/docs/safetensors
"""

import os
from pathlib import Path

import numpy as np

from negmerge.checkpoints.base import Checkpoint, OpenFile, elements
from negmerge.checkpoints.dtypes import DType, Raw
from negmerge.checkpoints.plain_file import open_plain, read_into
from negmerge.checkpoints.safetensors_header import broken, read_header

HEADER_LIMIT = 100_000_000  # the limit of the safetensors library


class SafetensorsFile(Checkpoint):
    """One safetensors file, opened; its header is parsed and checked once.

    Raises InputError for a file that is shorter than its header says, a header that is not the JSON of the format, an
    unknown dtype, a duplicate name, and offsets that overlap, leave gaps, do not fit the shape or leave the file.
    """

    def __init__(self, path: Path, shown: Path | None = None) -> None:
        self.path = shown or path
        self.files = (path,)
        self.tied: dict[str, str] = {}
        self._descriptor = open_plain(path)
        try:
            found = os.fstat(self._descriptor)
            text, self.data_start = self._header(found.st_size)
            self.metadata, self._entries = read_header(text, self.data_start, found.st_size, self.path)
            self._opened = OpenFile(path, self._descriptor, found.st_size, self._spans, found.st_mtime_ns)
        except BaseException:
            self.close()
            raise
        self.names = tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name][1]

    def dtype(self, name: str) -> DType:
        """Return the dtype of a tensor."""
        return self._entries[name][0]

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements start … stop of the flattened tensor as they are stored, as a new 1-D array."""
        dtype, shape, offset = self._entries[name]
        stop = elements(shape) if stop is None else stop
        values = np.empty(stop - start, dtype.stored)
        if stop > start:
            at = offset + start * dtype.itemsize
            read_into(self._descriptor, values.view(np.uint8).data, at, f"{self.path}: tensor {name}")
        return values

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return the file descriptor and the offset of a tensor's bytes."""
        return self._descriptor, self._entries[name][2]

    @property
    def names_by_place(self) -> list[str]:
        """The names in the order in which the tensors lie in the file; empty ones where they are said to lie."""
        return sorted(self.names, key=lambda name: self._entries[name][2])

    def opened(self) -> tuple[OpenFile, ...]:
        """Return the file."""
        return (self._opened,)

    def _spans(self) -> list[tuple[int, int, int]]:
        return [(at, at + elements(shape) * d.itemsize, d.itemsize) for d, shape, at in self._entries.values()]

    def close(self) -> None:
        """Release the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _header(self, size: int) -> tuple[bytes, int]:
        """Return the text of the header, and where the data begin."""
        raw = os.pread(self._descriptor, 8, 0)
        if len(raw) < 8:
            raise broken(self.path, f"it has {size} bytes")
        length = int.from_bytes(raw, "little")
        if length > HEADER_LIMIT or length + 8 > size:
            raise broken(self.path, f"its header claims {length:,} bytes, the file has {size:,}")
        return os.pread(self._descriptor, length, 8), 8 + length
