"""The files of a merge, opened and held against each other before a number is computed; none of them twice."""

import gc
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from negmerge.checkpoints import Checkpoint, find, open_adapter
from negmerge.checkpoints.adapter import Adapter, is_adapter
from negmerge.checkpoints.open_files import allow_open_files
from negmerge.checkpoints.opening import open_found
from negmerge.errors import InputError
from negmerge.merging.buffers import Policy
from negmerge.merging.pool.copies import refuse_copies
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.fitting import Trained, fit_pools, fit_weights

AnyPath = str | os.PathLike[str]
Found = tuple[Path, Path]  # where a checkpoint lies, and how messages name it


@dataclass(frozen=True)
class TermFiles:
    """The files of one term: members, the model that they were trained from (None: the base), and weights w, if any."""

    members: Sequence[Path]
    origin: Path | None = None
    weights: Path | None = None

    @property
    def all(self) -> list[Path]:
        """Every path of the term."""
        return [*self.members, *(path for path in (self.origin, self.weights) if path is not None)]


def term_files(members: Sequence[AnyPath], origin: AnyPath | None = None, weights: AnyPath | None = None) -> TermFiles:
    """Return the files of a term as paths."""
    return TermFiles(
        [Path(member) for member in members],
        None if origin is None else Path(origin),
        None if weights is None else Path(weights),
    )


@dataclass(frozen=True)
class OpenTerms:
    """The base, and of each term its pool and its weights."""

    base: Checkpoint
    pools: tuple[Pool, ...]
    weights: tuple[Checkpoint | None, ...]

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """All that is open; one that several terms use stands there for each."""
        pools = [checkpoint for pool in self.pools for checkpoint in (pool.base, *pool.members)]
        return (self.base, *pools, *(weights for weights in self.weights if weights is not None))


@contextmanager
def open_pool(
    base: Path, members: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Pool]:
    """Open a base and the members of one term: see `open_terms`."""
    with open_terms(base, [TermFiles(members)], include, exclude) as opened:
        yield opened.pools[0]


@contextmanager
def open_terms(
    base: Path,
    terms: Sequence[TermFiles],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    buffers: Policy = "keep",
) -> Iterator[OpenTerms]:
    """Open a base and all that terms name, members in the order of their resolved paths (hub: id@commit).

    A checkpoint that several terms name is opened once. Inside, the collector of cycles rests: a header makes thousands
    of objects and no cycle, and looking for one among them takes longer than reading it. Raises InputError for a member
    given twice in a term, for an origin that is given as a member of its own, and as `fit_pools` does.
    """
    allow_open_files()
    orders = [_order([find(member) for member in term.members]) for term in terms]
    found = find(base)
    shelf = _Shelf()
    pools: list[Pool] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        first = shelf.open_model(found)
        trained = []
        for term, (places, order) in zip(terms, orders, strict=True):
            origin = None if term.origin is None else shelf.open_model(find(term.origin))
            origin = None if origin is first else origin
            trained.append(_open_term(shelf, origin or first, [places[i] for i in order], origin is None))
        opened = [None if term.weights is None else shelf.open_model(find(term.weights)) for term in terms]
        full, fitted = fit_pools(first, trained, include, exclude, buffers)
        pools += [replace(pool, order=order) for pool, (_, order) in zip(fitted, orders, strict=True)]
        weights = [w if w is None else fit_weights(w, pool) for w, pool in zip(opened, pools, strict=True)]
        yield OpenTerms(full, tuple(pools), tuple(weights))
    finally:
        for checkpoint in (*(member for pool in pools for member in pool.members), *shelf.opened):
            checkpoint.close()
        if collecting:
            gc.enable()


class _Shelf:
    """Opens checkpoints, each once; adapters anew each time, as binding them takes them up."""

    def __init__(self) -> None:
        self.opened: list[Checkpoint | Adapter] = []
        self._models: dict[Path, Checkpoint] = {}

    def open(self, found: Found) -> Checkpoint | Adapter:
        """Open a model, or an adapter."""
        if not is_adapter(found[0]):
            return self.open_model(found)
        adapter = open_adapter(*found)
        self.opened.append(adapter)
        return adapter

    def open_model(self, found: Found) -> Checkpoint:
        """Open a model. Raises InputError for an adapter."""
        place = found[0].resolve()
        if place not in self._models:
            self._models[place] = open_found(*found)
            self.opened.append(self._models[place])
        return self._models[place]


def _order(places: Sequence[Found]) -> tuple[Sequence[Found], tuple[int, ...]]:
    """Return the places of members, and their order by name. Raises InputError for one that is given twice."""
    keys = [str(shown if place != shown else place.resolve()) for place, shown in places]
    order = sorted(range(len(places)), key=keys.__getitem__)
    for a, b in itertools.pairwise(order):
        if keys[a] == keys[b]:
            raise InputError(f"member {places[b][1]} is given twice; a repeated member would count double")
    return places, tuple(order)


def _open_term(shelf: _Shelf, origin: Checkpoint, places: Sequence[Found], is_base: bool) -> Trained:
    """Open the members of a term. Raises InputError where one is the origin itself, or a copy of another."""
    taken = {origin.path.resolve(), *(file.resolve() for file in origin.files)}
    members = []
    for place, shown in places:
        if place.resolve() in taken:
            raise InputError(
                f"member {shown} is the {'base' if is_base else 'origin'} itself; give the fine-tuned model"
            )
        members.append(shelf.open((place, shown)))
    _refuse_same_files([origin, *members])
    refuse_copies([origin, *members])
    return Trained(members, None if is_base else origin)


def _refuse_same_files(opened: Sequence[Checkpoint | Adapter]) -> None:
    """Raise InputError where a folder and the file in it were both given."""
    seen: dict[tuple[Path, ...], Path] = {}
    for checkpoint in opened:
        files = tuple(file.resolve() for file in checkpoint.files)
        first = seen.setdefault(files, checkpoint.path)
        if first is not checkpoint.path:
            raise InputError(f"{checkpoint.path} and {first} are the same weights; leave one of them out")
