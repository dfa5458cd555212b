"""safetensors, read with a header check that believes nothing.

Format: 8 bytes, little-endian, the length of the header; the header, a JSON object
name → {dtype, shape, data_offsets}; the data.
https://huggingface.co/docs/safetensors
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints.base import elements, is_name
from negmerge.checkpoints.foreign import refuse_quantised
from negmerge.checkpoints.plain_file import open_plain, read_into
from negmerge.errors import InputError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
HEADER_LIMIT = 100_000_000  # the limit of the safetensors library


class SafetensorsFile:
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
            size = os.fstat(self._descriptor).st_size
            header, self.data_start = self._header(size)
            self.metadata = self._metadata(header)
            odd = [name for name in header if not is_name(name)]
            if odd:
                raise self._fail(f"no tensor can be named {odd[0]!r:.80}")
            codes = {name: entry.get("dtype") for name, entry in header.items() if isinstance(entry, dict)}
            refuse_quantised(codes, self.path)
            self._entries = self._checked(header, size - self.data_start)
        except BaseException:
            self.close()
            raise
        self.names = tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name][1]

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor."""
        return self._entries[name][0]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements start … stop of the flattened tensor as a new 1-D tensor."""
        dtype, shape, offset = self._entries[name]
        stop = elements(shape) if stop is None else stop
        tensor = torch.empty(stop - start, dtype=dtype)
        if stop > start:
            at = offset + start * dtype.itemsize
            read_into(self._descriptor, tensor.view(torch.uint8).numpy().data, at, f"{self.path}: tensor {name}")
        return tensor

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return the file descriptor and the offset of a tensor's bytes."""
        return self._descriptor, self._entries[name][2]

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

    def _checked(self, header: dict[str, Any], size: int) -> dict[str, tuple[torch.dtype, tuple[int, ...], int]]:
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

    def _entry(self, name: str, entry: Any) -> tuple[torch.dtype, tuple[int, ...], int, int]:
        def is_count(value: Any) -> bool:
            return type(value) is int and 0 <= value < 2**62

        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._fail(f"the entry of tensor {name} is not dtype, shape and data_offsets")
        code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(code, str):
            raise self._fail(f"the dtype of tensor {name} is not a text")
        if code not in DTYPES:
            raise InputError(
                f"{self.path}: tensor {name} has dtype {code:.20}, which is not supported; "
                f"there are {', '.join(DTYPES)}"
            )
        if not isinstance(shape, list) or not all(map(is_count, shape)) or len(shape) > 64:
            raise self._fail(f"the shape of tensor {name} is not a list of counts")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
            raise self._fail(f"the data_offsets of tensor {name} are not two counts")
        return DTYPES[code], tuple(shape), offsets[0], offsets[1]
