"""A base and its members, opened and held against each other before a number is computed."""

import gc
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from negmerge.checkpoints import Checkpoint, find, open_adapter
from negmerge.checkpoints.adapter import Adapter, is_adapter
from negmerge.checkpoints.open_files import allow_open_files
from negmerge.checkpoints.opening import open_found
from negmerge.errors import InputError
from negmerge.merging.pool.copies import refuse_copies
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.fitting import fit_pool


@contextmanager
def open_pool(
    base: Path, members: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[Pool]:
    """Open a base and its members, the members in the order of their resolved paths (hub: id@commit).

    Inside, the collector of cycles rests: a header makes thousands of objects and no cycle, and looking for one among
    them takes longer than reading it. Raises InputError for a member given twice, for the base given as a member, and
    as `fit_pool` does.
    """
    allow_open_files()
    places = [find(Path(member)) for member in members]
    keys = [str(shown if place != shown else place.resolve()) for place, shown in places]
    order = sorted(range(len(places)), key=keys.__getitem__)
    for a, b in itertools.pairwise(order):
        if keys[a] == keys[b]:
            raise InputError(f"member {places[b][1]} is given twice; a repeated member would count double")
    origin = find(Path(base))
    opened: list[Checkpoint | Adapter] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        first = open_found(*origin)
        opened.append(first)
        taken = {origin[0].resolve(), *(file.resolve() for file in first.files)}
        for i in order:
            place, shown = places[i]
            if place.resolve() in taken:
                raise InputError(f"member {shown} is the base itself; give the fine-tuned model")
            opened.append(open_adapter(place, shown) if is_adapter(place) else open_found(place, shown))
        _refuse_same_files(opened)
        refuse_copies(opened)
        pool = fit_pool(first, opened[1:], include, exclude)
        try:
            yield replace(pool, order=tuple(order))
        finally:
            for member in pool.members:
                member.close()
    finally:
        for checkpoint in opened:
            checkpoint.close()
        if collecting:
            gc.enable()


def _refuse_same_files(opened: Sequence[Checkpoint | Adapter]) -> None:
    """Raise InputError where a folder and the file in it were both given."""
    seen: dict[tuple[Path, ...], Path] = {}
    for checkpoint in opened:
        files = tuple(file.resolve() for file in checkpoint.files)
        first = seen.setdefault(files, checkpoint.path)
        if first is not checkpoint.path:
            raise InputError(f"{checkpoint.path} and {first} are the same weights; leave one of them out")
