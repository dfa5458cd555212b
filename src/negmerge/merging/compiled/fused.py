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
from negmerge.merging.compiled.hashing import Hashing
from negmerge.merging.compiled.loop import Found, Scratch, merge_pieces
from negmerge.merging.compiled.reading import FINE
from negmerge.merging.compiled.rules import Rule, rule_of
from negmerge.merging.compiled.sources import KINDS, Sources
from negmerge.merging.hashes import InputHashes
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.term import Statistics, Term

CHUNK = 2**19  # elements of a tensor in one call, whole pieces of the hash: only the result is held
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class JobFound:
    """What a job found: states of its pieces, elements kept, effects, and how the members agree.

    `sealed` are the digests of OUT in pieces of the hash, those of piece i from `firsts[i]` on; empty where not wanted.
    """

    states: np.ndarray[Any, Any]
    found: Found
    sealed: Array
    firsts: Sequence[int]

    def is_fine(self, index: int) -> bool:
        """Whether a piece was merged; the plain way says what is wrong with any other."""
        return bool(self.states[index] == FINE)

    def kept(self, batch: Sequence[Piece]) -> list[tuple[str, int]]:
        """Return how many elements were kept of each piece that was merged, by the name of its tensor."""
        counts = zip(batch, self.found.kept.tolist(), self.states.tolist(), strict=True)
        return [(name, count) for (name, _, _), count, state in counts if state == FINE]

    def digests(self, index: int) -> tuple[Array, ...]:
        """Return what OUT's `write` takes beside a piece: its digests, where OUT is hashed."""
        return (self.sealed[self.firsts[index] : self.firsts[index + 1]],) if len(self.sealed) else ()

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
        self._firsts = hashes.first_pieces(sources.places, sources.sizes, sources.widths)
        self._scratch = threading.local()
        with np.errstate(over="ignore"):  # an α beyond float32 is found by what it makes of the weights
            self._alpha = np.float32(term.alpha)

    @property
    def chunk(self) -> int:
        """How many elements a job should have."""
        return CHUNK

    def stored_names(self, outlet: Outlet) -> list[str]:
        """Return the names whose elements the loops can write as OUT stores them: float32, bfloat16 or float16."""
        return [name for name in self.names if outlet.vector or outlet.dtype(name) in KINDS]

    def merge(self, pieces: Sequence[Piece], outlet: Outlet | None) -> tuple[np.ndarray[Any, Any], JobFound]:
        """Return the bytes of merged pieces, each as long as in float32, and what was found.

        Without an outlet they are τ, float32, else θ₀ ∓ α·τ in the dtype of OUT.
        """
        scratch, out, hashing = self._memory(pieces)
        rows = self._sources.rows(pieces)
        starts = np.fromiter((start for _, start, _ in pieces), np.int64, len(pieces))
        lengths = np.fromiter((stop for _, _, stop in pieces), np.int64, len(pieces)) - starts
        found = Found.of(self._sources.vectors[rows], self._members)
        firsts = np.concatenate([[0], np.cumsum(-(-lengths // ELEMENTS))])
        if self._hashes:
            hashing = hashing._replace(inputs=np.empty((firsts[-1], 1 + self._members, 32), np.uint8))
        if outlet is not None and outlet.hashed:
            hashing = hashing._replace(output=np.empty((firsts[-1], 32), np.uint8))
        if outlet is None or outlet.vector:
            operation, kinds = storing.DELTA, np.zeros(len(pieces), np.uint8)
        else:
            operation = storing.ADD if self._term.add else storing.SUBTRACT
            kinds = np.array([KINDS[outlet.dtype(name)] for name, _, _ in pieces], np.uint8)
        cutoffs = np.zeros((len(pieces), self._members), np.float32)
        if self._cutoffs:
            cutoffs[:] = [self._cutoffs[name] for name, _, _ in pieces]
        states = merge_pieces(
            self._sources.places[rows],
            self._sources.kinds[rows],
            starts,
            lengths,
            self._rule.kind,
            self._rule.need,
            cutoffs,
            operation,
            self._alpha,
            kinds,
            scratch,
            out,
            found,
            hashing,
        )
        if self._hashes:
            self._keep(rows, starts, lengths, states, hashing.inputs)
        return out, JobFound(states, found, hashing.output, firsts.tolist())

    def _keep(self, rows: Array, starts: Array, lengths: Array, states: Array, digests: Array) -> None:
        """Hand over the digests [pieces of the hash, 1 + N, 32] of a job, where they are of whole pieces."""
        counts = -(-lengths // ELEMENTS)
        of = np.repeat(np.arange(len(rows)), counts)
        inside = ELEMENTS * (np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts))
        begins = starts[of] + inside
        ends = np.minimum(begins + ELEMENTS, (starts + lengths)[of])
        whole = (begins % ELEMENTS == 0) & ((ends - begins == ELEMENTS) | (ends == self._sources.sizes[rows[of]]))
        fine = whole & (states[of] == FINE)
        of, places = of[fine], begins[fine] // ELEMENTS
        for i in range(1 + self._members):
            firsts = self._firsts[rows[of], i]
            self._hashes.put_digests(self._sources.places[rows[of], i, 0], firsts, places, digests[fine, i])

    def _memory(self, pieces: Sequence[Piece]) -> tuple[Scratch, Array, Hashing]:
        if not hasattr(self._scratch, "blocks"):
            self._scratch.blocks = Scratch.of(self._members)
            self._scratch.out = np.empty(4 * CHUNK, np.uint8)
            self._scratch.hashing = Hashing.of(1 + self._members, bool(self._hashes))
        total = 4 * sum(stop - start for _, start, stop in pieces)
        if len(self._scratch.out) < total:
            self._scratch.out = np.empty(total, np.uint8)
        return self._scratch.blocks, self._scratch.out, self._scratch.hashing


def fused_terms(term: Term, sources: Sources | None, statistics: Statistics, hashes: InputHashes) -> list[FusedTerm]:
    """Return the compiled merge of each group of tensors that share settings; a method without a loop has none."""
    found = []
    for part, names in term.merger.groups(sources.names) if sources is not None else ():
        rule = rule_of(part, len(term.pool.members))
        ready = part.method.reach == "element" or all(statistics[name].dtype == np.float32 for name in names)
        if sources is not None and rule is not None and ready:
            found.append(FusedTerm(term, rule, sources, names, statistics, hashes))
    return found
