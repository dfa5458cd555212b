"""Where the compiled loops find the tensors of a pool: descriptors, offsets and kinds of every checkpoint."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.dtypes import BFLOAT16, FLOAT16, FLOAT32
from negmerge.merging.compiled import reading
from negmerge.merging.compiled.reading import fetch_pieces
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.pool.fitted import Pool

KINDS = {FLOAT32: reading.FLOAT32, BFLOAT16: reading.BFLOAT16, FLOAT16: reading.FLOAT16}
Array = np.ndarray[Any, Any]


def readable(pool: Pool) -> list[str]:
    """Return the merged names that every checkpoint can point at, in a dtype that the loops read."""
    names = list(pool.merged)
    for checkpoint in (pool.base, *pool.members):
        names = [n for n in names if checkpoint.dtype(n) in KINDS and checkpoint.locate(n) is not None]
    return names


class Sources:
    """Tensors of a pool by their place in `names`; arrays [tensors, 1 + N], checkpoint 0 is the base."""

    def __init__(self, pool: Pool, names: Sequence[str]) -> None:
        self.index = {name: i for i, name in enumerate(names)}
        checkpoints: tuple[Checkpoint, ...] = (pool.base, *pool.members)
        places = [[checkpoint.locate(name) or (-1, 0) for name in names] for checkpoint in checkpoints]
        located = np.array(places, np.int64).reshape(len(checkpoints), len(names), 2)
        self.descriptors = np.ascontiguousarray(located[:, :, 0].T)
        self.offsets = np.ascontiguousarray(located[:, :, 1].T)
        kinds = [[KINDS[checkpoint.dtype(name)] for name in names] for checkpoint in checkpoints]
        self.kinds = np.ascontiguousarray(np.array(kinds, np.uint8).reshape(len(checkpoints), len(names)).T)
        self.widths = np.where(self.kinds == reading.FLOAT32, 4, 2)

    def rows(self, pieces: Sequence[Piece]) -> Array:
        """Return the rows of the arrays where the tensors of pieces stand."""
        return np.fromiter((self.index[name] for name, _, _ in pieces), np.int64, len(pieces))

    def fetch(self, rows: Array, pieces: Sequence[Piece], buffer: Array) -> tuple[Array, Array] | None:
        """Read the bytes of pieces of every checkpoint into a buffer (uint8).

        Returned are their places in the buffer and their lengths, [pieces, 1 + N]; None where a file ends before.
        """
        starts = np.array([[start] for _, start, _ in pieces], np.int64)
        lengths = np.array([[stop - start] for _, start, stop in pieces], np.int64)
        widths = self.widths[rows]
        counts = lengths * widths
        ends = np.cumsum((counts + 63) // 64 * 64).reshape(counts.shape)  # aligned for whatever reads them
        places = ends - (counts + 63) // 64 * 64
        addresses = places + buffer.ctypes.data
        whole = fetch_pieces(self.descriptors[rows], self.offsets[rows] + starts * widths, counts, addresses)
        return (places, counts) if whole else None
