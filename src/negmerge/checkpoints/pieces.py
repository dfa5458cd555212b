"""The tree hash of a file of tensors, filled piece by piece while the file is read or written.

    piece(i)  = BLAKE3(bytes of 65,536 elements of one tensor; its last piece may be shorter)
    part(t)   = BLAKE3(piece(0) ‖ piece(1) ‖ …), one part for each tensor, one for each stretch of bytes before,
                between and behind them (the header; cut at every 256 KiB)
    file      = BLAKE3(length as 8 bytes little-endian ‖ part, of all parts in the order of the file)

Written `blake3-tree:` and the 64 hexadecimal digits. A merge reads tensors in multiples of whole pieces, so the hash
costs no second read, and memory for the tensors that are being read only.

Source: BLAKE3, https://github.com/BLAKE3-team/BLAKE3-specs
"""

import os
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from negmerge.checkpoints.plain_file import read_into

ELEMENTS = 2**16  # of a tensor, in a piece
STRETCH = 2**18  # bytes of a piece that belongs to no tensor
PREFIX = "blake3-tree:"

Span = tuple[int, int, int]  # first byte, end, bytes of an element
Array = np.ndarray[Any, Any]


def placeholder(index: int) -> str:
    """Return a text as long as a hash, which stands for one until it is known; another for each index."""
    return f"{PREFIX}{index:064x}"


class PieceHash:
    """The tree hash of one open file; `put` takes pieces in any order, from threads, `finish` reads what is missing.

    `tensors` are the spans of the file's tensors; of spans that overlap only the first counts. With `start` the hash is
    of the parts from that byte on, such as all tensors without the header.
    """

    def __init__(self, path: Path, descriptor: int, size: int, tensors: Iterable[Span], start: int = 0) -> None:
        self._path, self._descriptor = path, descriptor
        self._parts = list(_parts(size, tensors, start))
        self._index = {begin: i for i, (begin, _, _) in enumerate(self._parts)}
        self._spans = np.array(self._parts, np.int64).reshape(-1, 3).T  # begins, ends, bytes of a piece
        counts = -(-(self._spans[1] - self._spans[0]) // self._spans[2])
        self._firsts = [0, *np.cumsum(counts).tolist()]  # of the pieces of each part, among all of the file
        self._digests = np.zeros((self._firsts[-1], 32), np.uint8)
        self._there = np.zeros(self._firsts[-1], np.bool_)

    def put(self, begin: int, offset: int, data: Any) -> None:
        """Take bytes of the tensor that begins at byte `begin` of the file, from its byte `offset` on.

        Whole pieces count; any other bytes are left to `finish`. So are those that were put before.
        """
        i = self._index.get(begin)
        if i is None:
            return
        _, end, piece = self._parts[i]
        view, length = memoryview(data), end - begin
        for at in range(-offset % piece, min(len(view), length - offset), piece):
            size, place = min(piece, length - offset - at), self._firsts[i] + (offset + at) // piece
            if at + size <= len(view) and not self._there[place]:  # several terms of a merge may read the same tensor
                self._digests[place] = np.frombuffer(_digest(view[at : at + size]), np.uint8)
                self._there[place] = True

    def first_pieces(self, begins: Array, sizes: Array, widths: Array) -> Array:
        """Return the number of the first piece of the tensors that begin at these bytes; −1 for one that is no part.

        begins, sizes, widths: [n], in bytes; a width is that of an element.
        """
        if not self._parts:
            return np.full(len(begins), -1, np.int64)
        own = self._spans[:, np.minimum(np.searchsorted(self._spans[0], begins), len(self._parts) - 1)]
        fits = (own[0] == begins) & (own[1] - begins == sizes) & (own[2] == widths * ELEMENTS)
        firsts = np.array(self._firsts)[np.searchsorted(self._spans[0], begins) * fits]
        return np.where(fits, firsts, -1)

    def put_digests(self, pieces: Array, digests: Array) -> None:
        """Take the digests [n, 32] of pieces, by their numbers in the file [n]."""
        self._digests[pieces] = digests
        self._there[pieces] = True

    def put_run(self, begin: int, offset: int, size: int, digests: Array) -> None:
        """Take the digests [n, 32] of the pieces of the tensor at byte `begin`, from its byte `offset`, where a piece
        begins, over `size` bytes; the last counts if it is whole.
        """
        i = self._index[begin]
        _, end, piece = self._parts[i]
        count = len(digests) if begin + offset + size == end else size // piece
        first = self._firsts[i] + offset // piece
        self._digests[first : first + count] = digests[:count]
        self._there[first : first + count] = True

    def finish(self, threads: int = 2) -> str:
        """Return the hash of the file, once the pieces that were not put are read.

        Raises InputError where the file has become shorter.
        """
        scratch = threading.local()

        def read(piece: tuple[int, int, int]) -> None:
            begin, offset, count = piece
            if not hasattr(scratch, "buffer") or len(scratch.buffer) < count:
                scratch.buffer = memoryview(bytearray(max(count, STRETCH)))
            read_into(self._descriptor, scratch.buffer[:count], begin + offset, str(self._path))
            self.put(begin, offset, scratch.buffer[:count])

        missing = list(self._missing())
        if missing:
            with ThreadPoolExecutor(threads) as pool:
                for _ in pool.map(read, missing):
                    pass
        digests = self._digests.tobytes()
        parts = [_digest(digests[32 * first : 32 * last]) for first, last in pairwise(self._firsts)]
        return PREFIX + _joined((end - begin for begin, end, _ in self._parts), parts).hex()

    def _missing(self) -> Iterator[tuple[int, int, int]]:
        for place in np.flatnonzero(~self._there).tolist():
            i = bisect_right(self._firsts, place) - 1
            begin, end, piece = self._parts[i]
            offset = (place - self._firsts[i]) * piece
            yield begin, offset, min(piece, end - begin - offset)


def hash_pieces(path: Path, tensors: Iterable[Span] = (), start: int = 0, threads: int = 2) -> str:
    """Return the tree hash of a file on disk, or of its parts from byte `start` on.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "x"; _ = file.write_bytes(b"abc")
    >>> hash_pieces(file)[:24]
    'blake3-tree:bb4690db977a'
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return PieceHash(path, descriptor, os.fstat(descriptor).st_size, tensors, start).finish(threads)
    finally:
        os.close(descriptor)


def hash_bytes(data: bytes) -> str:
    """Return the tree hash of a file that has these bytes and no tensors."""
    pieces = b"".join(_digest(data[at : at + STRETCH]) for at in range(0, len(data), STRETCH))
    return PREFIX + (_joined([len(data)], [_digest(pieces)]) if data else _digest(b"")).hex()


def hash_list(hashes: Mapping[str, str]) -> str:
    """Return the hash of several files by name: BLAKE3 of the lines `hash  name`, as `blake3-list:`; of one its own."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{found}  {name}\n" for name, found in hashes.items())
    return f"blake3-list:{_digest(lines.encode(errors='replace')).hex()}"


def _digest(data: Any) -> bytes:
    found: bytes = blake3(data).digest()
    return found


def _joined(sizes: Iterable[int], digests: Iterable[bytes]) -> bytes:
    parts = [size.to_bytes(8, "little") + digest for size, digest in zip(sizes, digests, strict=True)]
    return _digest(b"".join(parts))


def _parts(size: int, tensors: Iterable[Span], start: int) -> Iterator[Span]:
    """Cut a file from byte `start` on into the spans of its tensors and the stretches around them; no part is empty."""
    at = start
    for begin, end, width in sorted(tensors):
        if begin < at or end <= begin:
            continue
        if begin > at:
            yield at, begin, STRETCH
        yield begin, end, width * ELEMENTS
        at = end
    if size > at:
        yield at, size, STRETCH


def view_of(values: "np.ndarray[Any, Any]") -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    return values.reshape(-1).view(np.uint8).data
