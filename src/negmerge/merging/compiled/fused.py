"""The quick way for the common methods: whole jobs in one compiled call, outside the interpreter's lock.

It gives the same bits as the plain functions; what it cannot read (float64, adapters, tensors that are no plain bytes
of a file or of memory) takes the plain way.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from negmerge.checkpoints.pieces import ELEMENTS
from negmerge.merging.applying import Floats, Outlet
from negmerge.merging.compiled import storing
from negmerge.merging.compiled.loop import FETCHED, Found, Scratch, merge_pieces
from negmerge.merging.compiled.reading import FINE
from negmerge.merging.compiled.rules import Rule, rule_of
from negmerge.merging.compiled.sources import KINDS, Sources
from negmerge.merging.hashes import InputHashes
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.plan import Statistics, Term

CHUNK = 2**19  # elements of a tensor in one call: members are read in blocks, so only the result is held
# With hashes, the bytes of a job are held: of each checkpoint so many, whole pieces of the hash, which stay in cache.
HELD = 2 * 4 * ELEMENTS
NO_BYTES = np.empty(64, np.uint8)
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class JobFound:
    """What a job found: states of its pieces, elements kept, effects, and how the members agree."""

    states: np.ndarray[Any, Any]
    found: Found

    def is_fine(self, index: int) -> bool:
        """Whether a piece was merged; the plain way says what is wrong with any other."""
        return bool(self.states[index] == FINE)

    def kept(self, batch: Sequence[Piece]) -> list[tuple[str, int]]:
        """Return how many elements were kept of each piece that was merged, by the name of its tensor."""
        counts = zip(batch, self.found.kept.tolist(), self.states.tolist(), strict=True)
        return [(name, count) for (name, _, _), count, state in counts if state == FINE]

    @property
    def agreement(self) -> tuple[Array, Array, Array]:
        """Which members differ from the base, products and counts (see Agreement), of the whole job."""
        return self.found.differs, self.found.products, self.found.agreement

    def effect(self, alpha: float) -> Floats:
        """Return the effect on OUT (see Outlet.put) of the pieces that were merged, with α."""
        changed, squares, base, error, octaves = self.found.effects[self.states == FINE].sum(0)
        return np.array([changed, squares * alpha * alpha, base, error, octaves])


class FusedTerm:
    """Merges pieces of the tensors of one term that share the method's settings; several threads may ask it.

    `statistics` has the cutoffs [N, 1] of each tensor for a method that trims.
    """

    def __init__(
        self,
        term: Term,
        rule: Rule,
        sources: Sources,
        names: Sequence[str],
        statistics: Statistics,
        hashes: InputHashes,
    ) -> None:
        self.names = tuple(names)
        self._term, self._rule, self._hashes = term, rule, hashes
        self._members = len(term.pool.members)
        self._sources = sources
        self._cutoffs = {name: value[:, 0].astype(np.float32) for name, value in statistics.items()}
        self._scratch = threading.local()
        with np.errstate(over="ignore"):  # an α beyond float32 is found by what it makes of the weights
            self._alpha = np.float32(term.alpha)

    @property
    def chunk(self) -> int:
        """How many elements a job should have."""
        if not self._hashes:
            return CHUNK
        return HELD // int(self._sources.widths.max(initial=2))

    def stored_names(self, outlet: Outlet) -> list[str]:
        """Return the names whose elements the loops can write as OUT stores them: float32, bfloat16 or float16."""
        return [name for name in self.names if outlet.vector or outlet.dtype(name) in KINDS]

    def merge(self, pieces: Sequence[Piece], outlet: Outlet | None) -> tuple[np.ndarray[Any, Any], JobFound]:
        """Return the bytes of merged pieces, each as long as in float32, and what was found.

        Without an outlet they are τ, float32, else θ₀ ∓ α·τ in the dtype of OUT.
        """
        scratch, out = self._memory(pieces)
        rows = self._sources.rows(pieces)
        starts = np.fromiter((start for _, start, _ in pieces), np.int64, len(pieces))
        lengths = np.fromiter((stop for _, _, stop in pieces), np.int64, len(pieces)) - starts
        found = Found.of(self._sources.vectors[rows], self._members)
        sources, fetched = self._sources.places[rows], NO_BYTES
        if self._hashes and (there := self._fetch(rows, starts, lengths)) is not None:
            sources, fetched = there
            starts = np.zeros_like(starts)
        if outlet is None or outlet.vector:
            operation, kinds = storing.DELTA, np.zeros(len(pieces), np.uint8)
        else:
            operation = storing.ADD if self._term.add else storing.SUBTRACT
            kinds = np.array([KINDS[outlet.dtype(name)] for name, _, _ in pieces], np.uint8)
        cutoffs = np.zeros((len(pieces), self._members), np.float32)
        if self._cutoffs:
            cutoffs[:] = [self._cutoffs[name] for name, _, _ in pieces]
        states = merge_pieces(
            sources,
            self._sources.kinds[rows],
            starts,
            lengths,
            fetched,
            self._rule.kind,
            self._rule.need,
            cutoffs,
            operation,
            self._alpha,
            kinds,
            scratch,
            out,
            found,
        )
        return out, JobFound(states, found)

    def _fetch(self, rows: Array, starts: Array, lengths: Array) -> tuple[Array, Array] | None:
        """Read the bytes of pieces into memory, hash them there, and return the sources of the loop, and the bytes."""
        size = int((lengths * self._sources.widths[rows].sum(1)).sum()) + 64 * (1 + self._members) * len(rows)
        if not hasattr(self._scratch, "fetched") or len(self._scratch.fetched) < size:
            self._scratch.fetched = np.empty(-(-size // 64) * 64, np.uint8)
        buffer = self._scratch.fetched
        there = self._sources.fetch(rows, starts, lengths, buffer)
        if there is None:
            return None  # the loop itself will say where a file ends
        places, counts = there
        files = self._sources.places[rows].tolist()
        offsets = (starts[:, None] * self._sources.widths[rows]).tolist()
        view, put = memoryview(buffer), self._hashes.put
        for own, before, at, count in zip(files, offsets, places.tolist(), counts.tolist(), strict=True):
            for (descriptor, begin), offset, first, length in zip(own, before, at, count, strict=True):
                put(descriptor, begin, offset, view[first : first + length])
        sources = np.stack([np.full_like(places, FETCHED), places], axis=2)
        return sources, buffer

    def _memory(self, pieces: Sequence[Piece]) -> tuple[Scratch, np.ndarray[Any, Any]]:
        if not hasattr(self._scratch, "blocks"):
            self._scratch.blocks = Scratch.of(self._members)
            self._scratch.out = np.empty(4 * CHUNK, np.uint8)
        total = 4 * sum(stop - start for _, start, stop in pieces)
        if len(self._scratch.out) < total:
            self._scratch.out = np.empty(total, np.uint8)
        return self._scratch.blocks, self._scratch.out


def fused_terms(term: Term, sources: Sources | None, statistics: Statistics, hashes: InputHashes) -> list[FusedTerm]:
    """Return the compiled merge of each group of tensors that share settings; a method without a loop has none."""
    found = []
    for part, names in term.merger.groups(sources.names) if sources is not None else ():
        rule = rule_of(part, len(term.pool.members))
        ready = part.method.reach == "element" or all(statistics[name].dtype == np.float32 for name in names)
        if sources is not None and rule is not None and ready:
            found.append(FusedTerm(term, rule, sources, names, statistics, hashes))
    return found
