"""The plan of a merge, built once and then executed: which tensors merge, and which way each of them takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import Raw
from negmerge.errors import InputError, listing
from negmerge.execution import compiling
from negmerge.merging.passes.collecting import first_reads, ranked
from negmerge.merging.passes.plain import chunk_of
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.ties import groups
from negmerge.merging.term import Term

if TYPE_CHECKING:
    from negmerge.merging.compiled.sources import Sources

Write = Callable[..., None]  # see applying.Outlet


@dataclass(frozen=True)
class Plan:
    """A merge: θ = base + Σ terms, for the names in `merged`; all others pass through from the base.

    `tied` maps the further names of merged tensors to the one in `merged`. `sources` says for each term where the
    compiled loops find the tensors that they can read; None where its method has no loops. `sizes` are the elements of
    each merged tensor, `widths` the bytes that all checkpoints together hold for one of them.
    """

    base: Checkpoint
    terms: tuple[Term, ...]
    merged: tuple[str, ...]
    sources: "tuple[Sources | None, ...]"
    sizes: Mapping[str, int]
    widths: tuple[Mapping[str, int], ...]
    tied: Mapping[str, str]
    passed: tuple[str, ...]
    device: str = "cpu"

    def under_all_names(self, write: Write) -> Write:
        """Return a `write` that writes each piece of a merged tensor under all names that are tied to it."""
        copies = groups([*self.merged, *self.tied], self.tied)

        def write_all(name: str, start: int, values: Raw, *digests: Raw) -> None:
            for own in copies[name]:
                write(own, start, values, *digests)

        return write_all if self.tied else write

    @property
    def fused(self) -> bool:
        """Whether the compiled loops compute the merge to the end."""
        return len(self.terms) == 1 and self.terms[0].pool.base is self.base and self.terms[0].weights is None

    @property
    def chunk(self) -> int:
        """How many elements of a tensor the plain way merges at a time."""
        return chunk_of(sum(len(term.pool.members) for term in self.terms), self.device)

    @property
    def bytes_to_read(self) -> int:
        """Bytes of all checkpoints that the merge reads, those of its first passes included."""
        total = 0
        for term, sources, widths in zip(self.terms, self.sources, self.widths, strict=True):
            more = first_reads(term.pool, term.merger, self.chunk, sources.names if sources else ())
            of_weights = term.weights.dtype if term.weights is not None else None
            for name, width in widths.items():
                again = width - (of_weights(name).itemsize if of_weights else 0)
                total += self.sizes[name] * (width + again * more.get(name, 0))
        return total


def plan_merge(base: Checkpoint, terms: Sequence[Term], device: str = "cpu") -> Plan:
    """Plan a merge of terms whose pools are fitted.

    Raises InputError for weights that lack a merged tensor or have it in another shape.
    """
    for term in terms:
        if term.weights is not None:
            _check_weights(term.weights, term.pool)
    wanted = frozenset(name for term in terms for name in term.pool.merged)
    merged = tuple(name for name in base.names if name in wanted)
    tied = {name: first for term in terms for name, first in term.pool.tied.items()}
    return Plan(
        base,
        tuple(terms),
        merged,
        tuple(_sources(term, device) for term in terms),
        {name: elements(base.shape(name)) for name in merged},
        tuple(_widths(term) for term in terms),
        tied,
        tuple(name for name in base.names if name not in wanted and name not in tied),
        device,
    )


def _sources(term: Term, device: str) -> "Sources | None":
    """Return where the compiled loops find the tensors of a term, for a method that has such loops.

    On a device they only search the magnitudes that a method wants to know first.
    """
    if (device != "cpu" and not ranked(term.merger)) or not compiling.AVAILABLE:
        return None
    from negmerge.merging.compiled.rules import has_loop
    from negmerge.merging.compiled.sources import Sources

    return Sources(term.pool) if has_loop(term.merger) else None


def _widths(term: Term) -> dict[str, int]:
    pool = term.pool
    widths = [0] * len(pool.merged)
    for checkpoint in (pool.base, *pool.members, *([] if term.weights is None else [term.weights])):
        widths = [w + checkpoint.dtype(name).itemsize for w, name in zip(widths, pool.merged, strict=True)]
    return dict(zip(pool.merged, widths, strict=True))


def _check_weights(weights: Checkpoint, pool: Pool) -> None:
    there = frozenset(weights.names)
    problems = [f"{name} is missing" for name in pool.merged if name not in there]
    problems += [
        f"{name} has shape {list(weights.shape(name))}, in the base {list(pool.base.shape(name))}"
        for name in pool.merged
        if name in there and weights.shape(name) != pool.base.shape(name)
    ]
    problems += [
        f"{name} is {weights.dtype(name)}, weights are floats"
        for name in pool.merged
        if name in there and not weights.dtype(name).is_floating_point
    ]
    if problems:
        headline = f"{weights.path} does not fit as weights of {pool.base.path} in {len(problems)} tensors"
        raise InputError(listing(f"{headline} (--exclude leaves tensors out of the merge):", problems))
