"""PyTorch's own files (.pt, .pth, .bin, .ckpt, …), weights only: nothing in them is executed."""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from negmerge.checkpoints.base import UNNAMEABLE, Checkpoint, OpenFile, elements
from negmerge.checkpoints.dtypes import BY_CODE, DType, Raw
from negmerge.checkpoints.foreign import refuse_quantised
from negmerge.checkpoints.nesting import find_state
from negmerge.checkpoints.plain_file import open_plain, read_into
from negmerge.checkpoints.torch_formats import Find, describe
from negmerge.checkpoints.torch_names import MalformedError, RefusedError, TensorRecord
from negmerge.errors import InputError

REPEATED = 2**20  # elements up to which a tensor may show the stored ones more than once (torch.expand)


class TorchFile(Checkpoint):
    """A state dict saved by torch.save, read from where it lies in the file, piece by piece.

    In a trainer's dictionary the state dict is found by `nesting.find_state`, and `notes` say
    which one it is where there are several. Raises InputError for a file that is
    damaged, or whose state dict holds other objects than tensors or would execute code.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path = shown
        self.files = (path,)
        self.metadata: dict[str, str] = {}
        self._map: mmap.mmap | None = None
        self._descriptor = open_plain(path)
        try:
            found = os.fstat(self._descriptor)
            self._size, self._modified = found.st_size, found.st_mtime_ns
            loaded, find = describe(self._descriptor)
            self._records, self.notes = find_state(loaded, shown)
            refuse_quantised({name: record.dtype.code for name, record in self._records.items()}, shown)
            _refuse_dtypes(self._records, shown)
            self._offsets = {name: _offset(name, record, find) for name, record in self._records.items()}
        except BaseException as error:
            self.close()
            raise _explained(error, shown) from None
        self.names = tuple(self._records)
        self.tied = _shared(self._records)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._records[name].shape

    def dtype(self, name: str) -> DType:
        """Return the dtype of a tensor."""
        return self._records[name].dtype

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements start … stop of the flattened tensor as they are stored, as a new 1-D array."""
        record = self._records[name]
        stop = elements(record.shape) if stop is None else stop
        if stop > start and not _is_plain(record):
            return self._gather(record, self._offsets[name], start, stop)
        values = np.empty(stop - start, record.dtype.stored)
        if stop > start:
            at = self._offsets[name] + start * record.dtype.itemsize
            read_into(self._descriptor, values.view(np.uint8).data, at, f"{self.path}: tensor {name}")
        return values

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return the file descriptor and the offset of the bytes of a tensor that is contiguous."""
        return (self._descriptor, self._offsets[name]) if _is_plain(self._records[name]) else None

    def opened(self) -> tuple[OpenFile, ...]:
        """Return the file; tensors that are stored transposed or as a view have no span."""
        return (OpenFile(self.files[0], self._descriptor, self._size, self._spans, self._modified),)

    def _spans(self) -> list[tuple[int, int, int]]:
        plain = [(self._offsets[name], record) for name, record in self._records.items() if _is_plain(record)]
        return [(at, at + elements(r.shape) * r.dtype.itemsize, r.dtype.itemsize) for at, r in plain]

    def close(self) -> None:
        """Release the file."""
        self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _gather(self, record: TensorRecord, offset: int, start: int, stop: int) -> Raw:
        """Read the rows of a transposed or otherwise strided tensor that hold elements start … stop."""
        sides = [(size, step) for size, step in zip(record.shape, record.stride, strict=True) if size != 1]
        row = elements(tuple(size for size, _ in sides[1:]))
        first, last = start // row, -(-stop // row)
        width = record.dtype.itemsize
        if self._map is None:
            self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        rows: np.ndarray = np.ndarray(
            (last - first, *(size for size, _ in sides[1:])),
            f"u{width}",
            self._map,
            offset + first * sides[0][1] * width,
            tuple(step * width for _, step in sides),
        )
        values = np.array(rows, order="C").reshape(-1)[start - first * row : stop - first * row]
        return values.copy().view(record.dtype.stored)


def _explained(error: BaseException, shown: Path) -> BaseException:
    text = UNNAMEABLE.sub("?", str(error))[:200]
    if isinstance(error, MalformedError):
        return InputError(f"{shown} is not a whole PyTorch file: {text}; fetch or write it again")
    if isinstance(error, RefusedError):
        what = "and would execute code when loaded" if error.executes else "which is not read"
        return InputError(f"{shown} holds {text}, {what}; save its state_dict() alone, full and dense")
    return error


def _refuse_dtypes(records: Mapping[str, TensorRecord], shown: Path) -> None:
    for name, record in records.items():
        if record.dtype.code not in BY_CODE:
            raise InputError(f"{shown}: tensor {name} has dtype {record.dtype}, which is not supported; convert it")


def _offset(name: str, record: TensorRecord, find: Find) -> int:
    """Return the byte at which a tensor begins, once all of it lies in its storage."""
    begin, count = find(record.storage)
    width = record.dtype.itemsize
    stored = count // width
    total = elements(record.shape)
    at = record.storage.start + record.offset
    last = sum((size - 1) * step for size, step in zip(record.shape, record.stride, strict=True)) if total else -1
    if at + last >= stored or at > stored:
        raise MalformedError(f"tensor {name} goes beyond its storage")
    if total > max(stored, REPEATED):
        raise RefusedError(f"tensor {name}, of which {total:,} elements show {stored:,} stored ones")
    return begin + at * width


def _is_plain(record: TensorRecord) -> bool:
    step = 1
    for size, own in zip(reversed(record.shape), reversed(record.stride), strict=True):
        if size != 1 and own != step:
            return elements(record.shape) == 0
        step *= size
    return True


def _shared(records: Mapping[str, TensorRecord]) -> dict[str, str]:
    """Return the names that show the same elements as an earlier one, each with that name."""
    first: dict[TensorRecord, str] = {}
    found = {name: first.setdefault(record, name) for name, record in records.items() if elements(record.shape)}
    return {name: origin for name, origin in found.items() if name != origin}
