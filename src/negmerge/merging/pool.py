"""A base and its members, opened and held against each other before a number is computed."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from negmerge.checkpoints import Checkpoint, is_tied, open_checkpoint
from negmerge.errors import InputError, listing
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

    @property
    def passed(self) -> tuple[str, ...]:
        """The names that pass through from the base."""
        merged = frozenset(self.merged)
        return tuple(name for name in self.base.names if name not in merged)


def fit_pool(
    base: Checkpoint, members: Sequence[Checkpoint], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Pool:
    """Return the pool, once every member has exactly the base's tensors in the base's shapes.

    A name that a member has more is dropped if it shares its memory with one that the base has (tied weights).
    Raises InputError that lists every missing, extra and misshapen tensor.
    """
    if not members:
        raise InputError("the pool is empty: give at least one member beside the base")
    problems = [line for member in members for line in _differences(base, member)]
    if problems:
        raise InputError(listing(f"{len(problems)} tensors do not fit the base {base.path}:", problems))
    merged = select_tensors({name: base.dtype(name) for name in base.names}, include, exclude)
    for member in members:
        for name in merged:
            if not member.dtype(name).is_floating_point:
                raise InputError(f"{member.path}: {name} is {member.dtype(name)}, in the base {base.dtype(name)}")
    return Pool(base, tuple(members), tuple(merged), tuple(range(len(members))))


@contextmanager
def open_pool(
    base: Path, members: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Pool]:
    """Open a base and its members, the members in the order of their resolved paths.

    Raises InputError for a member given twice, for the base given as a member, and as `fit_pool` does.
    """
    places = [(Path(member).resolve(), Path(member)) for member in members]
    order = sorted(range(len(places)), key=lambda i: str(places[i][0]))
    resolved = [places[i] for i in order]
    for (a, _), (b, shown) in itertools.pairwise(resolved):
        if a == b:
            raise InputError(f"member {shown} is given twice; a repeated member would count double")
    for place, shown in resolved:
        if place == Path(base).resolve():
            raise InputError(f"member {shown} is the base itself; give the fine-tuned model")
    opened: list[Checkpoint] = []
    try:
        for path in (base, *(shown for _, shown in resolved)):
            opened.append(open_checkpoint(path))
        yield replace(fit_pool(opened[0], opened[1:], include, exclude), order=tuple(order))
    finally:
        for checkpoint in opened:
            checkpoint.close()


def _differences(base: Checkpoint, member: Checkpoint) -> list[str]:
    ours, theirs = dict.fromkeys(base.names), dict.fromkeys(member.names)
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
