"""safetensors, read with a header check that believes nothing.

Format: 8 bytes, little-endian, the length of the header; the header, a JSON object
name → {dtype, shape, data_offsets}; the data.
https://huggingface.co/docs/safetensors
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from negmerge.checkpoints.base import Checkpoint, OpenFile, elements, is_name
from negmerge.checkpoints.dtypes import BY_CODE, DType, Raw
from negmerge.checkpoints.foreign import refuse_quantised
from negmerge.checkpoints.plain_file import open_plain, read_into
from negmerge.errors import InputError

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
            self._size, self._modified = found.st_size, found.st_mtime_ns
            header, self.data_start = self._header(self._size)
            self.metadata = self._metadata(header)
            odd = [name for name in header if not is_name(name)]
            if odd:
                raise self._fail(f"no tensor can be named {odd[0]!r:.80}")
            codes = {name: entry.get("dtype") for name, entry in header.items() if isinstance(entry, dict)}
            refuse_quantised(codes, self.path)
            self._entries = self._checked(header, self._size - self.data_start)
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
        spans = [(at, at + elements(shape) * d.itemsize, d.itemsize) for d, shape, at in self._entries.values()]
        return (OpenFile(self.files[0], self._descriptor, self._size, tuple(spans), self._modified),)

    def close(self) -> None:
        """Release the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _fail(self, what: str) -> InputError:
        return InputError(f"{self.path} is not a whole safetensors file: {what}; fetch or write it again")

    def _header(self, size: int) -> tuple[dict[str, Any], int]:
        raw = os.pread(self._descriptor, 8, 0)
        if len(raw) < 8:
            raise self._fail(f"it has {size} bytes")
        length = int.from_bytes(raw, "little")
        if length > HEADER_LIMIT or length + 8 > size:
            raise self._fail(f"its header claims {length:,} bytes, the file has {size:,}")
        text = os.pread(self._descriptor, length, 8)
        try:
            header = json.loads(text.decode(), object_pairs_hook=self._unique)
        except (ValueError, RecursionError):
            raise self._fail("its header is not JSON") from None
        if not isinstance(header, dict):
            raise self._fail("its header is not a JSON object")
        return header, 8 + length

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise self._fail("its header names a tensor twice")
        return found

    def _metadata(self, header: dict[str, Any]) -> dict[str, str]:
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise self._fail("its __metadata__ is not a map of texts")
        return metadata

    def _checked(self, header: dict[str, Any], size: int) -> dict[str, tuple[DType, tuple[int, ...], int]]:
        entries = {}
        spans = []
        for name, entry in header.items():
            dtype, shape, begin, end = self._entry(name, entry)
            if not 0 <= begin <= end <= size:
                raise self._fail(f"tensor {name} lies at bytes {begin}:{end} of {size}")
            if end - begin != elements(shape) * dtype.itemsize:
                raise self._fail(f"tensor {name} has {end - begin} bytes for shape {list(shape)} of {dtype}")
            entries[name] = (dtype, shape, self.data_start + begin)
            spans.append((begin, end, name))
        spans.sort()
        at = 0
        for begin, end, name in spans:
            if begin != at:
                raise self._fail(f"tensor {name} starts at byte {begin}, expected {at} (overlap or gap)")
            at = end
        if at != size:
            raise self._fail(f"{size - at} bytes after the last tensor belong to none")
        return entries

    def _entry(self, name: str, entry: Any) -> tuple[DType, tuple[int, ...], int, int]:
        def is_count(value: Any) -> bool:
            return type(value) is int and 0 <= value < 2**62

        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._fail(f"the entry of tensor {name} is not dtype, shape and data_offsets")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str):
            raise self._fail(f"the dtype of tensor {name} is not a text")
        if code not in BY_CODE:
            raise InputError(
                f"{self.path}: tensor {name} has dtype {code:.20}, which is not supported; "
                f"there are {', '.join(BY_CODE)}"
            )
        if not isinstance(shape, list) or not all(map(is_count, shape)) or len(shape) > 64:
            raise self._fail(f"the shape of tensor {name} is not a list of counts")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
            raise self._fail(f"the data_offsets of tensor {name} are not two counts")
        return BY_CODE[code], tuple(shape), offsets[0], offsets[1]
