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
from negmerge.merging.compiled.loop import Found, Scratch, merge_pieces
from negmerge.merging.compiled.reading import FINE
from negmerge.merging.compiled.rules import Rule, rule_of
from negmerge.merging.compiled.sources import KINDS, Sources
from negmerge.merging.hashes import InputHashes
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.passes.plain import NOTHING, PieceFound
from negmerge.merging.plan import Statistics, Term

CHUNK = 2**19  # elements of a tensor in one call: members are read in blocks, so only the result is held
# With hashes, every member's bytes of a job are held: fewer elements, and whole pieces of the hash.
CHUNK_HASHED = ELEMENTS


@dataclass(frozen=True)
class JobFound:
    """What a job found: states of its pieces, elements kept, effects, and how the members agree."""

    states: np.ndarray[Any, Any]
    found: Found

    def is_fine(self, index: int) -> bool:
        """Whether a piece was merged; the plain way says what is wrong with any other."""
        return bool(self.states[index] == FINE)

    def piece(self, index: int, delta: Floats = NOTHING) -> PieceFound:
        """Return what was found in a piece; how the members agree, which is of the job, stands with its first one."""
        found = self.found
        first = index == int(np.argmax(self.states == FINE))
        products = found.products if first else np.zeros_like(found.products)
        agreement = found.agreement if first else np.zeros_like(found.agreement)
        return PieceFound(delta, int(found.kept[index]), found.differs, products, agreement)

    def effect(self, index: int, alpha: float) -> Floats:
        """Return the effect of a piece (see Outlet.put) that was merged with α."""
        changed, squares, base, error, octaves = self.found.effects[index]
        return np.array([changed, squares * alpha * alpha, base, error, octaves])


class FusedTerm:
    """Merges pieces of the tensors of one term that share the method's settings; several threads may ask it.

    `statistics` has the cutoffs [N, 1] of each tensor for a method that trims.
    """

    def __init__(
        self, term: Term, rule: Rule, names: Sequence[str], statistics: Statistics, hashes: InputHashes
    ) -> None:
        self.names = tuple(names)
        self._term, self._rule, self._hashes = term, rule, hashes
        self._members = len(term.pool.members)
        self._sources = Sources(term.pool, names)
        self._cutoffs = {name: value[:, 0].astype(np.float32) for name, value in statistics.items()}
        self._untrimmed = np.zeros(self._members, np.float32)
        self._scratch = threading.local()
        with np.errstate(over="ignore"):  # an α beyond float32 is found by what it makes of the weights
            self._alpha = np.float32(term.alpha)

    @property
    def chunk(self) -> int:
        """How many elements a job should have."""
        return CHUNK_HASHED if self._hashes else CHUNK

    def stores(self, name: str, outlet: Outlet) -> bool:
        """Whether the loops can write the tensor as it is stored in OUT: as float32, bfloat16 or float16."""
        return outlet.vector or outlet.dtype(name) in KINDS

    def merge(self, pieces: Sequence[Piece], outlet: Outlet | None) -> tuple[np.ndarray[Any, Any], JobFound]:
        """Return the bytes of merged pieces, each as long as in float32, and what was found.

        Without an outlet they are τ, float32, else θ₀ ∓ α·τ in the dtype of OUT.
        """
        scratch, out = self._memory(pieces)
        sources, rows = self._sources, self._sources.rows(pieces)
        lengths = np.fromiter((stop - start for _, start, stop in pieces), np.int64, len(pieces))
        starts = np.fromiter((start for _, start, _ in pieces), np.int64, len(pieces))
        found = Found.of(sources.vectors[rows], self._members)
        descriptors, offsets = sources.descriptors[rows], sources.offsets[rows]
        if self._hashes and (fetched := self._fetch(rows, pieces)) is not None:
            descriptors, offsets = np.full_like(descriptors, -1), fetched
            starts = np.zeros_like(starts)
        if outlet is None or outlet.vector:
            operation, kinds = storing.DELTA, np.zeros(len(pieces), np.uint8)
        else:
            operation = storing.ADD if self._term.add else storing.SUBTRACT
            kinds = np.array([KINDS[outlet.dtype(name)] for name, _, _ in pieces], np.uint8)
        states = merge_pieces(
            descriptors,
            offsets,
            sources.kinds[rows],
            starts,
            lengths,
            self._rule.kind,
            self._rule.need,
            np.stack([self._cutoffs.get(name, self._untrimmed) for name, _, _ in pieces]),
            operation,
            self._alpha,
            kinds,
            scratch,
            out,
            found,
        )
        return out, JobFound(states, found)

    def _fetch(self, rows: np.ndarray[Any, Any], pieces: Sequence[Piece]) -> np.ndarray[Any, Any] | None:
        """Read the bytes of pieces into memory, hash them there, and return their addresses."""
        lengths = np.fromiter((stop - start for _, start, stop in pieces), np.int64, len(pieces))
        size = int((lengths * self._sources.widths[rows].sum(1)).sum()) + 64 * (1 + self._members) * len(pieces)
        if not hasattr(self._scratch, "fetched") or len(self._scratch.fetched) < size:
            self._scratch.fetched = np.empty(size, np.uint8)
        buffer = self._scratch.fetched
        there = self._sources.fetch(rows, pieces, buffer)
        if there is None:
            return None  # the loop itself will say where a file ends
        places, counts = there
        view = memoryview(buffer)
        for row, (_, start, _), at, count in zip(rows, pieces, places.tolist(), counts.tolist(), strict=True):
            descriptors, offsets = self._sources.descriptors[row].tolist(), self._sources.offsets[row].tolist()
            widths = self._sources.widths[row].tolist()
            for descriptor, offset, width, first, length in zip(descriptors, offsets, widths, at, count, strict=True):
                self._hashes.put(descriptor, offset, start * width, view[first : first + length])
        addresses: np.ndarray[Any, Any] = places + buffer.ctypes.data
        return addresses

    def _memory(self, pieces: Sequence[Piece]) -> tuple[Scratch, np.ndarray[Any, Any]]:
        if not hasattr(self._scratch, "blocks"):
            self._scratch.blocks = Scratch.of(self._members)
            self._scratch.out = np.empty(4 * max(CHUNK, CHUNK_HASHED), np.uint8)
        total = 4 * sum(stop - start for _, start, stop in pieces)
        if len(self._scratch.out) < total:
            self._scratch.out = np.empty(total, np.uint8)
        return self._scratch.blocks, self._scratch.out


def fused_terms(term: Term, names: Sequence[str], statistics: Statistics, hashes: InputHashes) -> list[FusedTerm]:
    """Return the compiled merge of each group of `names` that share settings; a method without a loop has none."""
    found = []
    for part, some in term.merger.groups(names):
        rule = rule_of(part, len(term.pool.members))
        ready = part.method.reach == "element" or all(statistics[name].dtype == np.float32 for name in some)
        if rule is not None and ready:
            found.append(FusedTerm(term, rule, some, statistics, hashes))
    return found
