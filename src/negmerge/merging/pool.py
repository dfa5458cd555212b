"""A base and its members, opened and held against each other before a number is computed."""

import gc
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from negmerge.checkpoints import Checkpoint, find, is_tied, open_adapter
from negmerge.checkpoints.adapter import BoundAdapter, is_adapter
from negmerge.checkpoints.alias import Aliased
from negmerge.checkpoints.opening import open_found
from negmerge.errors import InputError, listing
from negmerge.merging.copies import refuse_copies
from negmerge.merging.selecting import select_tensors


@dataclass(frozen=True)
class Pool:
    """A base and members that fit it; `merged` are the names that merge, all others pass through from the base.

    `order` are the places that the members had in the list as it was given.
    """

    base: Checkpoint
    members: tuple[Checkpoint, ...]
    merged: tuple[str, ...]
    order: tuple[int, ...]

    @cached_property
    def merged_set(self) -> frozenset[str]:
        """The names that merge, to look one up."""
        return frozenset(self.merged)

    @property
    def passed(self) -> tuple[str, ...]:
        """The names that pass through from the base."""
        merged = frozenset(self.merged)
        return tuple(name for name in self.base.names if name not in merged)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the members: adapters that say they were trained on another model than the base."""
        known = self.base.path.resolve().name.partition("@")[0]
        declared = [(m.path, m.declared_base) for m in self.members if isinstance(m, BoundAdapter)]
        return tuple(
            f"{path} says that it was trained on {base}, the base given is {self.base.path}"
            for path, base in declared
            if base and Path(base).name != known
        )


def fit_pool(
    base: Checkpoint, members: Sequence[Checkpoint], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Pool:
    """Return the pool, once every member has exactly the base's tensors in the base's shapes.

    A name that a member has more is dropped if it shares its memory with one that the base has (tied weights); one
    that it has less stands for the tensor that it is tied to in the base. Of a pool of adapters only the tensors
    that one of them touches merge. Raises InputError that lists every missing, extra and misshapen tensor.
    """
    if not members:
        raise InputError("the pool is empty: give at least one member beside the base")
    fitted = [_with_tied_names(base, member) for member in members]
    problems = [line for member in fitted for line in _differences(base, member)]
    if problems:
        raise InputError(listing(f"{len(problems)} tensors do not fit the base {base.path}:", problems))
    candidates = base.names
    adapters = [member for member in members if isinstance(member, BoundAdapter)]
    if len(adapters) == len(members):
        touched = frozenset[str]().union(*(adapter.touched for adapter in adapters))
        candidates = tuple(name for name in base.names if name in touched)
    merged = select_tensors({name: base.dtype(name) for name in candidates}, include, exclude)
    for member in fitted:
        for name in merged:
            if not member.dtype(name).is_floating_point:
                raise InputError(f"{member.path}: {name} is {member.dtype(name)}, in the base {base.dtype(name)}")
    return Pool(base, tuple(fitted), tuple(merged), tuple(range(len(members))))


@contextmanager
def open_pool(
    base: Path, members: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Pool]:
    """Open a base and its members, the members in the order of their resolved paths (hub: id@commit).

    Inside, the collector of cycles rests: a header makes thousands of objects and no cycle, and looking for one among
    them takes longer than reading it. Raises InputError for a member given twice, for the base given as a member, and
    as `fit_pool` does.
    """
    places = [find(Path(member)) for member in members]
    keys = [str(shown if place != shown else place.resolve()) for place, shown in places]
    order = sorted(range(len(places)), key=keys.__getitem__)
    for a, b in itertools.pairwise(order):
        if keys[a] == keys[b]:
            raise InputError(f"member {places[b][1]} is given twice; a repeated member would count double")
    origin = find(Path(base))
    opened: list[Checkpoint] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        opened.append(open_found(*origin))
        taken = {origin[0].resolve(), *(file.resolve() for file in opened[0].files)}
        for i in order:
            place, shown = places[i]
            if place.resolve() in taken:
                raise InputError(f"member {shown} is the base itself; give the fine-tuned model")
            adapter = is_adapter(place)
            opened.append(open_adapter(place, shown).bind(opened[0]) if adapter else open_found(place, shown))
        _refuse_same_files(opened)
        refuse_copies(opened)
        yield replace(fit_pool(opened[0], opened[1:], include, exclude), order=tuple(order))
    finally:
        for checkpoint in opened:
            checkpoint.close()
        if collecting:
            gc.enable()


def _refuse_same_files(opened: Sequence[Checkpoint]) -> None:
    """Raise InputError where a folder and the file in it were both given."""
    seen: dict[tuple[Path, ...], Path] = {}
    for checkpoint in opened:
        files = tuple(file.resolve() for file in checkpoint.files)
        first = seen.setdefault(files, checkpoint.path)
        if first is not checkpoint.path:
            raise InputError(f"{checkpoint.path} and {first} are the same weights; leave one of them out")


def _with_tied_names(base: Checkpoint, member: Checkpoint) -> Checkpoint:
    """Give a member the names that it lacks only because the base's format writes tied weights twice."""
    has = frozenset(member.names)
    groups: dict[str, list[str]] = {}
    for name in base.names:
        groups.setdefault(base.tied.get(name, name), []).append(name)
    alias = {
        name: present[0]
        for group in groups.values()
        if len(group) > 1 and (present := [name for name in group if name in has])
        for name in group
        if name not in has
    }
    return Aliased(member, alias) if alias else member


def _differences(base: Checkpoint, member: Checkpoint) -> list[str]:
    ours: Mapping[str, None] = dict.fromkeys(base.names)
    theirs: Mapping[str, None] = dict.fromkeys(member.names)
    lines = [f"{member.path}: {name} is missing" for name in ours if name not in theirs]
    lines += [
        f"{member.path}: {name} is not in the base"
        for name in theirs
        if name not in ours and not is_tied(member, name, ours)
    ]
    lines += [
        f"{member.path}: {name} has shape {list(member.shape(name))}, in the base {list(base.shape(name))}"
        for name in ours
        if name in theirs and member.shape(name) != base.shape(name)
    ]
    return lines
