"""The quick way to the k-th magnitudes: a tensor that fits a buffer is selected in, larger ones have digits counted."""

import threading
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints.base import elements
from negmerge.merging.compiled import kernels, rank_kernels
from negmerge.merging.compiled.fused import KINDS, located
from negmerge.merging.passes.ranking import RankSearch
from negmerge.merging.passes.streaming import CHUNK, OnBytes, Piece, cut, in_threads, read_deltas
from negmerge.merging.pool import Pool

PIECE = 2**21  # elements in a job that only counts, for the counts are added up once for each job


class FusedRanks:
    """Finds magnitudes at ranks of the task vectors of a pool, in compiled loops; all names must be fusible."""

    def __init__(self, pool: Pool, workers: int | None = None, on_bytes: OnBytes | None = None) -> None:
        self._pool, self._workers, self._on_bytes = pool, workers, on_bytes
        self._checkpoints = (pool.base, *pool.members)
        self._scratch = threading.local()

    def select(self, ranks: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """Return the magnitudes [N, ranks] of tensors of at most CHUNK elements, each in one read."""
        members, width = len(self._pool.members), max((len(r) for r in ranks.values()), default=0)

        def work(batch: list[Piece]) -> dict[str, Tensor]:
            names = [name for name, _, _ in batch]
            places = [self._place(name) for name in names]
            found = np.zeros((len(batch), members, width), np.float32)
            longest = max(stop for _, _, stop in batch)
            states = rank_kernels.select_whole(
                np.stack([p[0] for p in places]),
                np.stack([p[1] for p in places]),
                np.stack([p[2] for p in places]),
                np.array([stop for _, _, stop in batch], np.int64),
                np.array([ranks[name] for name in names], np.int64),
                np.empty(longest, np.float32),
                np.empty(longest, np.float32),
                np.empty(longest, np.uint16),
                found,
            )
            for piece, state in zip(batch, states, strict=True):
                self._done(piece, state)
            return {name: torch.from_numpy(found[k]) for k, name in enumerate(names)}

        results: dict[str, Tensor] = {
            name: torch.zeros(members, width) for name in ranks if elements(self._pool.base.shape(name)) == 0
        }
        for part in in_threads(work, cut(self._pool, ranks, CHUNK), self._workers):
            results.update(part)
        return results

    def count(self, searches: Mapping[str, RankSearch]) -> None:
        """Bring searches to their end, in two reads of the tensors; several names may share a search."""

        def work(batch: list[Piece]) -> None:
            for _, pieces in groupby(batch, key=lambda piece: id(searches[piece[0]])):
                self._count_pieces(list(pieces), searches)

        while names := [name for name, search in searches.items() if not search.done]:
            for _ in in_threads(work, cut(self._pool, names, PIECE), self._workers):
                pass

    def _count_pieces(self, pieces: list[Piece], searches: Mapping[str, RankSearch]) -> None:
        search = searches[pieces[0][0]]
        known, high, low = search.digit
        counts = np.zeros((*known.shape, 1 << (high - low)), np.int32)
        if not hasattr(self._scratch, "floats"):
            self._scratch.floats = np.empty((2, kernels.BLOCK), np.float32)
            self._scratch.raw = np.empty(kernels.BLOCK, np.uint16)
        for piece in pieces:
            name, start, stop = piece
            descriptors, offsets, kinds = self._place(name)
            state = rank_kernels.count_digits(
                descriptors,
                offsets,
                kinds,
                start,
                stop - start,
                known.numpy(),
                high,
                low,
                self._scratch.floats,
                self._scratch.raw,
                counts,
            )
            self._done(piece, state)
        search.add_counts(torch.from_numpy(counts), sum(stop - start for _, start, stop in pieces))

    def _place(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        places = np.array([located(c, name) for c in self._checkpoints], np.int64)
        kinds = np.array([KINDS[c.dtype(name)] for c in self._checkpoints], np.uint8)
        return np.ascontiguousarray(places[:, 0]), np.ascontiguousarray(places[:, 1]), kinds

    def _done(self, piece: Piece, state: int) -> None:
        name, start, stop = piece
        if state != kernels.FINE:
            for first in range(start, stop, CHUNK):  # the plain way says what is wrong
                read_deltas(self._pool, name, first, min(first + CHUNK, stop))
        if self._on_bytes:
            self._on_bytes((stop - start) * sum(c.dtype(name).itemsize for c in self._checkpoints))
