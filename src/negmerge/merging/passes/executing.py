"""Executing a plan: every merged tensor is computed once, piece by piece, and handed to where it goes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from negmerge.checkpoints.dtypes import exact, to_floats
from negmerge.merging.agreement import Effect
from negmerge.merging.applying import Floats, Outlet, add_step, no_effect
from negmerge.merging.hashes import InputHashes
from negmerge.merging.importance import read_importance
from negmerge.merging.passes.collecting import collect
from negmerge.merging.passes.jobs import OnBytes, Piece, cut, in_threads
from negmerge.merging.passes.plain import NO_HASHES, Array, PieceFound, merge_piece
from negmerge.merging.plan import Plan
from negmerge.merging.tally import Merged, Tally
from negmerge.merging.term import Statistics, Term

if TYPE_CHECKING:
    from negmerge.merging.compiled.fused import FusedTerm
    from negmerge.merging.compiled.sources import Sources
    from negmerge.merging.passes.on_device import DeviceTerm


Found = tuple[Sequence[tuple[str, int]], Array, Array, Array]  # what Tally.add takes


@dataclass(frozen=True)
class _JobResult:
    """What a job found: of each term what its tally adds, and the effect on OUT (see Outlet.put)."""

    terms: tuple[list[Found], ...]
    effect: Floats


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
        collect(term.pool, term.merger, plan.chunk, sources, plan.device, workers, on_bytes)
        for term, sources in zip(plan.terms, plan.sources, strict=True)
    ]
    ways = [
        _Way(term, sources, found, plan.device, hashes)
        for term, sources, found in zip(plan.terms, plan.sources, statistics, strict=True)
    ]
    run = _Run(plan, ways, outlet, hashes, on_bytes)
    tallies = [Tally(term.pool) for term in plan.terms]
    effect = no_effect()
    for names, chunk, work in run.parts():
        for result in in_threads(work, cut(plan.sizes, names, chunk), workers):
            for tally, finds in zip(tallies, result.terms, strict=True):
                for found in finds:
                    tally.add(*found)
            effect += result.effect
    return Merged(
        tuple(tally.counts() for tally in tallies),
        tuple(tally.agreement for tally in tallies),
        None if outlet.vector else Effect.of(sum(plan.sizes.values()), effect),
    )


class _Way:
    """How the pieces of a term are merged: by a compiled loop where there is one for a tensor, else plainly."""

    def __init__(
        self, term: Term, sources: "Sources | None", statistics: Statistics, device: str, hashes: InputHashes
    ) -> None:
        self.term, self.statistics = term, statistics
        self._device, self._hashes = device, hashes
        self.fused: list[FusedTerm] = []
        self.device: DeviceTerm | None = None
        if device.startswith("cuda"):
            from negmerge.merging.passes import on_device

            self.device = on_device.DeviceTerm(term, statistics, device, hashes)
        elif sources is not None and device == "cpu":
            from negmerge.merging.compiled.fused import fused_terms

            self.fused = fused_terms(term, sources, statistics, hashes)
        self._of = {name: fused for fused in self.fused for name in fused.names}

    def merge(self, piece: Piece) -> PieceFound:
        """Return τ of a piece and what was found."""
        if self.device is not None:
            return self.device.merge(piece)
        fused = self._of.get(piece[0])
        if fused is not None:
            out, job = fused.merge([piece], None)
            if job.is_fine(0):
                delta = out[: 4 * (piece[2] - piece[1])].view(np.float32).copy()
                return PieceFound(delta, job.kept([piece])[0][1], *job.agreement)
        return self.merge_plainly(piece)

    def merge_plainly(self, piece: Piece) -> PieceFound:
        """Return τ of a piece by the method's own function, which says what is wrong with the numbers if anything."""
        return merge_piece(self.term, piece, self.statistics, self._device, self._hashes)


Part = tuple[Sequence[str], int, Callable[[list[Piece]], _JobResult]]  # tensors, elements of a job, the work


@dataclass(frozen=True)
class _Run:
    """The work of a plan: which tensors are computed by which way, and each way's job."""

    plan: Plan
    ways: Sequence["_Way"]
    outlet: Outlet
    hashes: InputHashes
    on_bytes: OnBytes | None

    def parts(self) -> Iterator[Part]:
        """Yield the tensors of each way: to the end on a device or by a compiled loop, else term by term."""
        done: dict[str, None] = {}
        for names, chunk, work in self._whole() if self.plan.fused else ():
            own = [name for name in names if name not in self.outlet.at_least]
            yield own, chunk, work
            done.update(dict.fromkeys(own))
        yield [name for name in self.plan.merged if name not in done], self.plan.chunk, self._sum_up

    def _whole(self) -> Iterator[Part]:
        (way,) = self.ways
        if way.device is not None and not self.outlet.vector:
            yield self.plan.merged, self.plan.chunk, partial(self._on_device, way.device)
        for fused in way.fused:
            yield fused.stored_names(self.outlet), fused.chunk, partial(self._by_loop, fused)

    def _sum_up(self, batch: list[Piece]) -> _JobResult:
        found: tuple[list[Found], ...] = tuple([] for _ in self.plan.terms)
        effect = no_effect()
        for piece in batch:
            effect += self._sum_piece(piece, found)
            self._tell(piece)
        return _JobResult(found, effect)

    def _on_device(self, term: "DeviceTerm", batch: list[Piece]) -> _JobResult:
        finds: list[Found] = []
        effect = no_effect()
        for piece in batch:
            found, more = term.merge_whole(piece, self.outlet)
            finds.append(([(piece[0], found.kept)], found.differs, found.products, found.agreement))
            effect += more
            self._tell(piece)
        return _JobResult((finds,), effect)

    def _by_loop(self, term: "FusedTerm", batch: list[Piece]) -> _JobResult:
        """Merge by a compiled loop; the plain way takes the pieces that it could not."""
        out, job = term.merge(batch, self.outlet)
        found: tuple[list[Found], ...] = ([(job.kept(batch), *job.agreement)],)
        effect = job.effect(self.plan.terms[0].alpha)
        at = 0
        for i, piece in enumerate(batch):
            name, start, stop = piece
            if job.is_fine(i):
                dtype = exact(self.plan.base.dtype(name)) if self.outlet.vector else self.outlet.dtype(name)
                size = (stop - start) * dtype.itemsize
                values = out[4 * at : 4 * at + size].view(dtype.stored)
                self.outlet.write(name, start, values, *job.digests(i))
            else:
                effect = effect + self._sum_piece(piece, found, plainly=True)
            self._tell(piece)
            at += stop - start
        return _JobResult(found, effect)

    def _sum_piece(self, piece: Piece, found: tuple[list[Found], ...], plainly: bool = False) -> Floats:
        """Compute a piece of OUT term by term, write it, and return its effect; what terms find goes to `found`."""
        name, start, stop = piece
        base, dtype = self.hashes.read(self.plan.base, name, start, stop), self.plan.base.dtype(name)
        origin = to_floats(base, dtype)
        values = origin
        for i, (way, finds) in enumerate(zip(self.ways, found, strict=True)):
            term = way.term
            if name not in term.pool.merged_set:
                continue
            merged = way.merge_plainly(piece) if plainly else way.merge(piece)
            finds.append(([(name, merged.kept)], merged.differs, merged.products, merged.agreement))
            delta = merged.delta
            if term.weights is not None:
                weights = read_importance(term.weights, name, start, stop, self.hashes)
                delta = delta * weights.astype(delta.dtype, copy=False)
            if self.outlet.vector:
                place = (i,) if self.outlet.by_term else ()
                self.outlet.write(name, start, delta.astype(exact(dtype).stored, copy=False), *place)
                continue
            values = add_step(values, delta, term.alpha, term.add)
        if self.outlet.vector:
            return no_effect()
        with np.errstate(over="ignore", invalid="ignore"):
            return self.outlet.put(name, start, base, dtype, values, values - origin)

    def _tell(self, piece: Piece) -> None:
        if self.on_bytes is not None:
            name, start, stop = piece
            self.on_bytes((stop - start) * sum(widths.get(name, 0) for widths in self.plan.widths))
