"""The quick way to the k-th magnitudes: small tensors are selected in, larger ones bracketed, or digits are counted."""

import threading
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import numpy as np

from negmerge.checkpoints.base import elements
from negmerge.merging.compiled.bracketing import (
    OVERFLOW,
    RUN,
    SAMPLE,
    SHARE,
    Bracket,
    bounds_of,
    bracket_piece,
    fits,
    sample_magnitudes,
)
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
                self._check(piece, state)
                self._tell(piece)
            return {name: found[k] for k, (name, _, _) in enumerate(batch)}

        results: dict[str, Array] = {
            name: np.zeros((members, width), np.float32) for name in ranks if self._sizes[name] == 0
        }
        for part in in_threads(work, cut(self._sizes, ranks, CHUNK), self._workers):
            results.update(part)
        return results

    def count(self, searches: Mapping[str, RankSearch]) -> None:
        """Bring searches to their end, in one read of the tensors or two; several names may share a search.

        Only the first reading of a tensor is told to `on_bytes`, where one should do.
        """
        bracketed = {name for name, search in searches.items() if not search.done and fits(search)}
        self._bracket({name: searches[name] for name in searches if name in bracketed})

        def work(batch: list[Piece]) -> None:
            for _, pieces in groupby(batch, key=lambda piece: id(searches[piece[0]])):
                self._count_pieces(list(pieces), searches, bracketed)

        while names := [name for name, search in searches.items() if not search.done]:
            for _ in in_threads(work, cut(self._sizes, names, PIECE), self._workers):
                pass

    def _bracket(self, searches: Mapping[str, RankSearch]) -> None:
        """End the searches that one read will do for."""
        names: dict[int, list[str]] = {}
        for name, search in searches.items():
            names.setdefault(id(search), []).append(name)
        brackets: dict[int, Bracket] = {}

        def sample(group: list[str]) -> None:
            search = searches[group[0]]
            brackets[id(search)] = Bracket(search, *bounds_of(self._sample(group), search.ranks, search.total))

        for _ in in_threads(sample, names.values(), self._workers):
            pass

        def work(batch: list[Piece]) -> None:
            for piece in batch:
                self._bracket_piece(piece, brackets[id(searches[piece[0]])])

        for _ in in_threads(work, cut(self._sizes, searches, PIECE), self._workers):
            pass

    def _sample(self, names: Sequence[str]) -> Array:
        """Return magnitudes [N, about SAMPLE] of elements from all over some tensors."""
        total, found = sum(self._sizes[name] for name in names), []
        for name in names:
            size, row = self._sizes[name], self._sources.index[name]
            runs = min(-(-size * SAMPLE // (total * RUN)), size // RUN)
            starts = np.linspace(0, size - RUN, runs).astype(np.int64)
            part = np.zeros((len(self._pool.members), runs * RUN), np.float32)
            places, kinds = self._sources.places[row], self._sources.kinds[row]
            state = sample_magnitudes(places, kinds, starts, *self._memory(), part)
            self._check((name, 0, size), state)
            found.append(part)
        return np.concatenate(found, axis=1)

    def _bracket_piece(self, piece: Piece, bracket: Bracket) -> None:
        name, start, stop = piece
        row, shape = self._sources.index[name], bracket.low.shape
        above, counts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        if not hasattr(self._scratch, "kept") or self._scratch.kept.shape[:2] != shape:
            self._scratch.kept = np.empty((*shape, PIECE // SHARE), np.float32)
        kept, places, kinds = self._scratch.kept, self._sources.places[row], self._sources.kinds[row]
        state = bracket_piece(
            places, kinds, start, stop - start, bracket.low, bracket.high, *self._memory(), above, kept, counts
        )
        if state == OVERFLOW:
            bracket.give_up()
        else:
            self._check(piece, state)
            bracket.add(above, kept, counts, stop - start)
        self._tell(piece)

    def _memory(self) -> tuple[Array, Array]:
        if not hasattr(self._scratch, "floats"):
            self._scratch.floats = np.empty((2, BLOCK), np.float32)
            self._scratch.raw = np.empty(BLOCK, np.uint16)
        return self._scratch.floats, self._scratch.raw

    def _count_pieces(self, pieces: list[Piece], searches: Mapping[str, RankSearch], told: Collection[str]) -> None:
        search = searches[pieces[0][0]]
        known, high, low = search.digit
        counts = np.zeros((*known.shape, 1 << (high - low)), np.int32)
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
                *self._memory(),
                counts,
            )
            self._check(piece, state)
            if name not in told:
                self._tell(piece)
        search.add_counts(counts, sum(stop - start for _, start, stop in pieces))

    def _check(self, piece: Piece, state: int) -> None:
        name, start, stop = piece
        if state != FINE:
            for first in range(start, stop, CHUNK):  # the plain way says what is wrong
                read_deltas(self._pool, name, first, min(first + CHUNK, stop))

    def _tell(self, piece: Piece) -> None:
        name, start, stop = piece
        if self._on_bytes:
            self._on_bytes((stop - start) * piece_width(self._pool, name))
