"""Hashes of a merge's inputs, taken from the elements as they are read; and whether the files stayed as they were."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.dtypes import Raw
from negmerge.checkpoints.pieces import PieceHash, hash_list, hash_pieces, view_of
from negmerge.errors import InputError

Array = np.ndarray[Any, Any]


class InputHashes:
    """The tree hashes of the files of checkpoints; false, and without effect, where none are wanted."""

    def __init__(self, checkpoints: Iterable[Checkpoint] = ()) -> None:
        self._by_descriptor: dict[int, PieceHash] = {}
        self._by_path: dict[Path, PieceHash] = {}
        for checkpoint in checkpoints:
            for file in checkpoint.opened():
                if file.descriptor not in self._by_descriptor:
                    found = PieceHash(file.path, file.descriptor, file.size, file.tensors)
                    self._by_descriptor[file.descriptor] = self._by_path[file.path] = found

    def __bool__(self) -> bool:
        return bool(self._by_descriptor)

    def put(self, descriptor: int, begin: int, offset: int, data: Any) -> None:
        """Take bytes of the tensor that begins at byte `begin` of an open file, from its byte `offset` on."""
        found = self._by_descriptor.get(descriptor)
        if found is not None:
            found.put(begin, offset, data)

    def first_pieces(self, places: Array, sizes: Array, widths: Array) -> Array:
        """Return where the digests of tensors begin, [tensors, checkpoints]: −1 where a tensor is no part of a hash.

        places: [tensors, checkpoints, 2], an open file and where the tensor begins in it; sizes: [tensors], elements;
        widths: [tensors, checkpoints], bytes of one.
        """
        found = np.full(places.shape[:2], -1, np.int64)
        for descriptor, file in self._by_descriptor.items():
            own = places[:, :, 0] == descriptor
            found[own] = file.first_pieces(places[own][:, 1], (sizes[:, None] * widths)[own], widths[own])
        return found

    def put_digests(self, descriptors: Array, firsts: Array, places: Array, digests: Array) -> None:
        """Take the digests [n, 32] of whole pieces: number `places` [n] of the tensors that begin at `firsts` [n]."""
        for descriptor in np.unique(descriptors[firsts >= 0]).tolist():
            own = (descriptors == descriptor) & (firsts >= 0)
            self._by_descriptor[descriptor].put_digests((firsts + places)[own], digests[own])

    def read(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> Raw:
        """Return elements of a tensor as they are stored, and take their bytes."""
        values = checkpoint.raw(name, start, stop)
        place = checkpoint.locate(name) if self else None
        if place is not None:
            self.put(*place, start * values.itemsize, view_of(values))
        return values

    def of(self, checkpoint: Checkpoint, threads: int = 2) -> str:
        """Return the hash of a checkpoint, once what was not read of its files is.

        That of several files is the BLAKE3 of the lines `hash  name` of each. Raises InputError where a file changed.
        """
        hashes = {
            file.name: self._by_path[file].finish(threads)
            if file in self._by_path
            else hash_pieces(file, threads=threads)
            for file in checkpoint.files
        }
        return hash_list(hashes)


class Stamps:
    """Size and last change of the files of checkpoints when they were opened; `check` compares them with what is now.

    A file that is replaced under its name stays what it was for whoever holds it open, and is not changed.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._open = {file.descriptor: file for checkpoint in checkpoints for file in checkpoint.opened()}
        held = {file.path for file in self._open.values()}
        self._closed = {
            path: _stamp(path) for checkpoint in checkpoints for path in checkpoint.files if path not in held
        }

    def check(self) -> None:
        """Raise InputError for a file that was written to since it was opened: its hash would be of two states."""
        for descriptor, file in self._open.items():
            if _stamp(descriptor) != (file.size, file.modified):
                raise _changed(file.path)
        for path, stamp in self._closed.items():
            if _stamp(path) != stamp:
                raise _changed(path)


def _stamp(file: Path | int) -> tuple[int, int]:
    try:
        found = os.fstat(file) if isinstance(file, int) else file.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _changed(path: Path) -> InputError:
    return InputError(f"{path} changed while it was read; merge again when nothing writes to it")
