"""Executing a plan: every merged tensor is computed once, piece by piece, and handed to where it goes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from negmerge.checkpoints.dtypes import exact, to_floats
from negmerge.merging.agreement import Effect
from negmerge.merging.applying import Floats, Outlet, add_step
from negmerge.merging.hashes import InputHashes
from negmerge.merging.importance import read_importance
from negmerge.merging.passes.collecting import collect
from negmerge.merging.passes.jobs import OnBytes, Piece, cut, in_threads
from negmerge.merging.passes.plain import NO_HASHES, PieceFound, merge_piece
from negmerge.merging.plan import Plan, Statistics, Term
from negmerge.merging.tally import Merged, Tally

if TYPE_CHECKING:
    from negmerge.merging.compiled.fused import FusedTerm, JobFound


@dataclass(frozen=True)
class _JobResult:
    """What a job found: of each term its pieces, by name, and the effect on OUT (see Outlet.put)."""

    terms: tuple[list[tuple[str, PieceFound]], ...]
    effect: Floats = field(default_factory=lambda: np.zeros(4))


def execute(
    plan: Plan,
    outlet: Outlet,
    *,
    workers: int | None = None,
    on_bytes: OnBytes | None = None,
    hashes: InputHashes = NO_HASHES,
) -> Merged:
    """Compute every merged tensor of a plan, hand its pieces to `outlet` from `workers` threads, and sum what is found.

    Raises InputError for whatever is wrong in the numbers of the inputs.
    """
    statistics = [
        collect(term.pool, term.merger, plan.chunk, compiled, plan.device, workers, on_bytes)
        for term, compiled in zip(plan.terms, plan.compiled, strict=True)
    ]
    ways = [
        _Way(term, compiled, found, plan.device, hashes)
        for term, compiled, found in zip(plan.terms, plan.compiled, statistics, strict=True)
    ]
    tallies = [Tally(term.pool) for term in plan.terms]
    effect = np.zeros(4)

    def take(results: Iterable[_JobResult]) -> None:
        for result in results:
            for tally, pieces in zip(tallies, result.terms, strict=True):
                for name, found in pieces:
                    tally.add([(name, found.kept)], found.differs, found.products, found.agreement)
            effect[:] += result.effect

    def tell(name: str, count: int) -> None:
        if on_bytes:
            on_bytes(count * sum(t.width(name) for t in plan.terms if name in t.pool.merged_set))

    def sum_up(batch: list[Piece]) -> _JobResult:
        found: tuple[list[tuple[str, PieceFound]], ...] = tuple([] for _ in plan.terms)
        total = np.zeros(4)
        for piece in batch:
            total += _sum_piece(plan, ways, piece, outlet, hashes, found)
            tell(piece[0], piece[2] - piece[1])
        return _JobResult(found, total)

    done: set[str] = set()
    if plan.fused:
        way = ways[0]
        for fused in way.fused:
            names = [name for name in fused.names if name not in outlet.at_least and fused.stores(name, outlet)]

            def merge_whole(batch: list[Piece], fused: "FusedTerm" = fused) -> _JobResult:
                out, job = fused.merge(batch, outlet)
                return _hand_over(plan, ways, batch, out, job, outlet, hashes, tell)

            take(in_threads(merge_whole, cut(plan.sizes, names, fused.chunk), workers))
            done.update(names)
    rest = [name for name in plan.merged if name not in done]
    take(in_threads(sum_up, cut(plan.sizes, rest, plan.chunk), workers))
    elements = sum(plan.sizes.values())
    return Merged(
        tuple(tally.counts() for tally in tallies),
        tuple(tally.agreement for tally in tallies),
        Effect(elements, int(effect[0]), *map(float, effect[1:])),
    )


class _Way:
    """How the pieces of a term are merged: by a compiled loop where there is one for a tensor, else plainly."""

    def __init__(
        self, term: Term, compiled: frozenset[str], statistics: Statistics, device: str, hashes: InputHashes
    ) -> None:
        self.term, self.statistics = term, statistics
        self._device, self._hashes = device, hashes
        self.fused: list[FusedTerm] = []
        if compiled:
            from negmerge.merging.compiled.fused import fused_terms

            names = [name for name in term.pool.merged if name in compiled]
            self.fused = fused_terms(term, names, statistics, hashes)
        self._of = {name: fused for fused in self.fused for name in fused.names}

    def merge(self, piece: Piece) -> PieceFound:
        """Return τ of a piece and what was found."""
        fused = self._of.get(piece[0])
        if fused is not None:
            out, job = fused.merge([piece], None)
            if job.is_fine(0):
                return job.piece(0, out[: 4 * (piece[2] - piece[1])].view(np.float32).copy())
        return self.merge_plainly(piece)

    def merge_plainly(self, piece: Piece) -> PieceFound:
        """Return τ of a piece by the method's own function, which says what is wrong with the numbers if anything."""
        return merge_piece(self.term, piece, self.statistics, self._device, self._hashes)


def _sum_piece(
    plan: Plan,
    ways: Sequence[_Way],
    piece: Piece,
    outlet: Outlet,
    hashes: InputHashes,
    found: tuple[list[tuple[str, PieceFound]], ...],
    plainly: bool = False,
) -> Floats:
    """Compute a piece of OUT term by term, write it, and return its effect; what terms find is appended to `found`."""
    name, start, stop = piece
    base, dtype = hashes.read(plan.base, name, start, stop), plan.base.dtype(name)
    origin = to_floats(base, dtype)
    values = origin
    for way, pieces in zip(ways, found, strict=True):
        term = way.term
        if name not in term.pool.merged_set:
            continue
        merged = way.merge_plainly(piece) if plainly else way.merge(piece)
        pieces.append((name, merged))
        delta = merged.delta
        if term.weights is not None:
            delta = delta * read_importance(term.weights, name, start, stop, hashes).astype(delta.dtype, copy=False)
        if outlet.vector:
            outlet.write(name, start, delta.astype(exact(dtype).stored, copy=False))
            return np.zeros(4)
        values = add_step(values, delta, term.alpha, term.add)
    with np.errstate(over="ignore", invalid="ignore"):
        return outlet.put(name, start, base, dtype, values, values - origin)


def _hand_over(
    plan: Plan,
    ways: Sequence[_Way],
    batch: list[Piece],
    out: np.ndarray[Any, Any],
    job: "JobFound",
    outlet: Outlet,
    hashes: InputHashes,
    tell: Any,
) -> _JobResult:
    """Write the pieces that a compiled loop computed to the end; the plain way takes those that it could not."""
    found: tuple[list[tuple[str, PieceFound]], ...] = ([],)
    effect = np.zeros(4)
    at = 0
    for i, (name, start, stop) in enumerate(batch):
        count = stop - start
        if job.is_fine(i):
            dtype = exact(plan.base.dtype(name)) if outlet.vector else outlet.dtype(name)
            outlet.write(name, start, out[4 * at : 4 * at + count * dtype.itemsize].view(dtype.stored))
            found[0].append((name, job.piece(i)))
            effect += job.effect(i, plan.terms[0].alpha)
        else:
            effect += _sum_piece(plan, ways, (name, start, stop), outlet, hashes, found, plainly=True)
        tell(name, count)
        at += count
    return _JobResult(found, effect)
