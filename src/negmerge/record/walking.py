"""Which files lie below a folder, those behind links to other folders included where that is allowed."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from negmerge.errors import InputError


def files_below(folder: Path, enters: Callable[[str], bool]) -> Iterator[str]:
    """Yield the names of all files below a folder, relative and with slashes, in no stated order.

    A link to a folder is entered where `enters(name)` says so, so that a part of a run may lie on another disk; the
    files behind it then have the names that they had before they were moved. A link that is not entered, that leads
    nowhere, or that leads back to a folder it lies in, is yielded itself, as a file is: whoever reads a listing sees
    it. Raises InputError for a folder that cannot be listed.
    """
    yield from _walk(folder, "", (folder.resolve(),), enters)


def _walk(place: Path, prefix: str, above: tuple[Path, ...], enters: Callable[[str], bool]) -> Iterator[str]:
    """Yield as `files_below` does; `above` are the real paths of the folders that lead here, this one included."""
    try:
        with os.scandir(place) as listed:
            entries = list(listed)
    except OSError as error:
        raise InputError(f"{place}: {error.strerror or error}; this folder must be readable to be compared") from None
    for entry in entries:
        name = f"{prefix}{entry.name}"
        real = place / entry.name
        if not _is_folder(entry):
            yield name
        elif not entry.is_symlink() or (enters(name) and real.resolve() not in above):
            yield from _walk(real, f"{name}/", (*above, real.resolve()), enters)
        else:
            yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
