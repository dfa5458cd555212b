"""The hashes of pieces of tensors (see checkpoints.pieces), taken while their bytes lie in the cache."""

from typing import NamedTuple

import numpy as np

from negmerge.checkpoints.pieces import ELEMENTS
from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.blake3_lanes import CHUNK_END, CHUNK_START, INITIAL, LANES, PARENT, ROOT, compress
from negmerge.merging.compiled.reading import FETCHED, FLOAT32, GAP, fetch

CHUNK, BLOCK = 1024, 64  # bytes of BLAKE3's chunks and blocks
LONGEST = 4 * ELEMENTS  # bytes of a piece, of float32 elements
PITCH = LONGEST + 4 * GAP  # bytes from one fetched piece to the next
NOTHING = np.empty((0, 32), np.uint8)


class HashScratch(NamedTuple):
    """The memory of a thread that hashes."""

    state: np.ndarray  # uint32 [8, LANES]
    values: np.ndarray  # uint32 [chunks of a piece + 2 · LANES, 8]: chaining values of chunks, then of their parents
    tail: np.ndarray  # uint8 [(LANES + 1) · CHUNK]: what is no whole vector of chunks

    @staticmethod
    def new() -> "HashScratch":
        """Return scratch."""
        values = np.empty((LONGEST // CHUNK + 2 * LANES, 8), np.uint32)
        return HashScratch(np.empty((8, LANES), np.uint32), values, np.zeros((LANES + 1) * CHUNK, np.uint8))


class Hashing(NamedTuple):
    """What a job hashes, and the memory of its thread. A piece of the hash has ELEMENTS elements, or ends a tensor."""

    inputs: np.ndarray  # uint8 [pieces, 1 + N, 32]: digests; without pieces where the inputs are not hashed
    output: np.ndarray  # uint8 [pieces, 32]: digests; without pieces where OUT is not hashed
    fetched: np.ndarray  # uint8 [(1 + N) · PITCH]: a piece of every checkpoint, unless the inputs are not hashed
    held: np.ndarray  # int64 [1 + N, 2]: FETCHED, and where each checkpoint's piece is there
    scratch: HashScratch

    @staticmethod
    def of(checkpoints: int, inputs: bool) -> "Hashing":
        """Return the memory of a thread for so many checkpoints; a job puts its own digests there."""
        held = np.array([(FETCHED, i * PITCH) for i in range(checkpoints)], np.int64)
        fetched = np.empty(checkpoints * PITCH if inputs else 64, np.uint8)
        return Hashing(np.empty((0, checkpoints, 32), np.uint8), NOTHING, fetched, held, HashScratch.new())


@compiled
def _compress(state, block, stride, count, step, size, flags):  # type: ignore[no-untyped-def]
    compress(np.intp(state.ctypes.data), block, stride, count, step, size, flags)


@compiled
def _begin(state):  # type: ignore[no-untyped-def]
    for word in range(8):
        for lane in range(LANES):
            state[word, lane] = INITIAL[word, lane]


@compiled
def _keep(state, lanes, first, values):  # type: ignore[no-untyped-def]
    for lane in range(lanes):
        for word in range(8):
            values[first + lane, word] = state[word, lane]


@compiled
def _hash_chunks(address, lanes, blocks, first, size, flags, scratch):  # type: ignore[no-untyped-def]
    """Set the chaining values of `lanes` chunks, from number `first` on, of so many blocks; the last has `size` bytes.

    `flags` are those of the last block. The vectors read LANES chunks, whatever `lanes` is; a single one LANES times.
    """
    stride = CHUNK if lanes > 1 else 0
    _begin(scratch.state)
    for i in range(blocks):
        last = i == blocks - 1
        own = (CHUNK_START if i == 0 else 0) | (flags if last else 0)
        _compress(scratch.state, address + BLOCK * i, stride, first, 1, size if last else BLOCK, own)
    _keep(scratch.state, lanes, first, scratch.values)


@compiled
def _join(count, scratch):  # type: ignore[no-untyped-def]
    """Join `count` chaining values, two by two, until one is left; an odd one waits for the next round."""
    values = scratch.values
    where = np.intp(values.ctypes.data)
    while count > 1:
        pairs, flags = count // 2, PARENT | (ROOT if count == 2 else 0)
        for first in range(0, pairs, LANES):
            _begin(scratch.state)
            _compress(scratch.state, where + BLOCK * first, BLOCK, 0, 0, BLOCK, flags)
            _keep(scratch.state, min(LANES, pairs - first), first, values)
        if count % 2:
            for word in range(8):
                values[pairs, word] = values[count - 1, word]
        count = pairs + count % 2


@compiled
def hash_piece(data, scratch, digest):  # type: ignore[no-untyped-def]
    """Set digest (uint8 [32]) to the BLAKE3 of data (uint8), at most LONGEST bytes."""
    tail = scratch.tail
    here, there = np.intp(data.ctypes.data), np.intp(tail.ctypes.data)
    whole = len(data) // CHUNK
    count = max(1, -(-len(data) // CHUNK))
    done = whole // LANES * LANES
    end = CHUNK_END | (ROOT if count == 1 else 0)
    for first in range(0, done, LANES):
        _hash_chunks(here + CHUNK * first, LANES, CHUNK // BLOCK, first, BLOCK, end, scratch)
    rest = len(data) - CHUNK * done
    for j in range(rest):
        tail[j] = data[CHUNK * done + j]
    if whole > done:
        _hash_chunks(there, whole - done, CHUNK // BLOCK, done, BLOCK, end, scratch)
    if count > whole:
        begin = CHUNK * (whole - done)
        blocks = max(1, -(-(rest - begin) // BLOCK))
        for j in range(rest, begin + BLOCK * blocks):
            tail[j] = 0
        _hash_chunks(there + begin, 1, blocks, whole, rest - begin - BLOCK * (blocks - 1), end, scratch)
    _join(count, scratch)
    for word in range(8):
        for byte in range(4):
            digest[4 * word + byte] = np.uint8((scratch.values[0, word] >> np.uint32(8 * byte)) & np.uint32(255))


@compiled
def fetch_hashed(sources, kinds, start, count, hashing, piece):  # type: ignore[no-untyped-def]
    """Read elements of every checkpoint to where `held` says, and hash them; False where a file ends before.

    sources: [1 + N, 2], kinds: [1 + N]; piece: which piece of the job it is.
    """
    for i in range(len(kinds)):
        width, place = 4 if kinds[i] == FLOAT32 else 2, hashing.held[i, 1]
        own = hashing.fetched[place : place + width * count]
        if not fetch(sources[i, 0], sources[i, 1] + width * start, own.ctypes.data, width * count):
            return False
        hash_piece(own, hashing.scratch, hashing.inputs[piece, i])
    return True
