"""The quick way to the k-th magnitudes: a tensor that fits a buffer is selected in, larger ones have digits counted."""

import threading
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from negmerge.checkpoints.base import elements
from negmerge.merging.compiled.rank_loops import count_digits, select_whole
from negmerge.merging.compiled.reading import BLOCK, FINE
from negmerge.merging.compiled.sources import Sources
from negmerge.merging.passes.jobs import OnBytes, Piece, cut, in_threads
from negmerge.merging.passes.plain import CHUNK, Array, piece_width, read_deltas
from negmerge.merging.passes.ranking import RankSearch
from negmerge.merging.pool.fitted import Pool

PIECE = 2**21  # elements in a job that only counts, for the counts are added up once for each job


class FusedRanks:
    """Finds magnitudes at ranks of the task vectors of a pool, in compiled loops, in tensors that these can read."""

    def __init__(
        self, pool: Pool, sources: Sources, workers: int | None = None, on_bytes: OnBytes | None = None
    ) -> None:
        self._pool, self._sources, self._workers, self._on_bytes = pool, sources, workers, on_bytes
        self._sizes = {name: elements(pool.base.shape(name)) for name in sources.names}
        self._scratch = threading.local()

    def select(self, ranks: Mapping[str, Sequence[int]]) -> dict[str, Array]:
        """Return the magnitudes [N, ranks] of tensors of at most CHUNK elements, each in one read."""
        members, width = len(self._pool.members), max((len(r) for r in ranks.values()), default=0)

        def work(batch: list[Piece]) -> dict[str, Array]:
            rows, sources = self._sources.rows(batch), self._sources
            found = np.zeros((len(batch), members, width), np.float32)
            longest = max(stop for _, _, stop in batch)
            states = select_whole(
                sources.places[rows],
                sources.kinds[rows],
                np.array([stop for _, _, stop in batch], np.int64),
                np.array([ranks[name] for name, _, _ in batch], np.int64),
                np.empty(longest, np.float32),
                np.empty(longest, np.float32),
                np.empty(longest, np.uint16),
                found,
            )
            for piece, state in zip(batch, states, strict=True):
                self._done(piece, state)
            return {name: found[k] for k, (name, _, _) in enumerate(batch)}

        results: dict[str, Array] = {
            name: np.zeros((members, width), np.float32) for name in ranks if self._sizes[name] == 0
        }
        for part in in_threads(work, cut(self._sizes, ranks, CHUNK), self._workers):
            results.update(part)
        return results

    def count(self, searches: Mapping[str, RankSearch]) -> None:
        """Bring searches to their end, in two reads of the tensors; several names may share a search."""

        def work(batch: list[Piece]) -> None:
            for _, pieces in groupby(batch, key=lambda piece: id(searches[piece[0]])):
                self._count_pieces(list(pieces), searches)

        while names := [name for name, search in searches.items() if not search.done]:
            for _ in in_threads(work, cut(self._sizes, names, PIECE), self._workers):
                pass

    def _count_pieces(self, pieces: list[Piece], searches: Mapping[str, RankSearch]) -> None:
        search = searches[pieces[0][0]]
        known, high, low = search.digit
        counts = np.zeros((*known.shape, 1 << (high - low)), np.int32)
        if not hasattr(self._scratch, "floats"):
            self._scratch.floats = np.empty((2, BLOCK), np.float32)
            self._scratch.raw = np.empty(BLOCK, np.uint16)
        for piece in pieces:
            name, start, stop = piece
            row = self._sources.index[name]
            state = count_digits(
                self._sources.places[row],
                self._sources.kinds[row],
                start,
                stop - start,
                known,
                high,
                low,
                self._scratch.floats,
                self._scratch.raw,
                counts,
            )
            self._done(piece, state)
        search.add_counts(counts, sum(stop - start for _, start, stop in pieces))

    def _done(self, piece: Piece, state: int) -> None:
        name, start, stop = piece
        if state != FINE:
            for first in range(start, stop, CHUNK):  # the plain way says what is wrong
                read_deltas(self._pool, name, first, min(first + CHUNK, stop))
        if self._on_bytes:
            self._on_bytes((stop - start) * piece_width(self._pool, name))
