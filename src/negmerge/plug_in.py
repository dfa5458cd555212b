"""How a config names a plug-in: by its registered name, or by the path of its file."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from negmerge.registry import FILE


def _name(value: Any) -> Any:
    """Return what a plug-in is looked up by: of `{file: PATH}` the path. Raises ValueError for another mapping."""
    if not isinstance(value, Mapping):
        return value
    path = value.get("file")
    if set(value) != {"file"} or not isinstance(path, str | Path) or not str(path).endswith(FILE):
        raise ValueError(f"write a name, or {{file: PATH}} with the path of a Python file ({FILE})")
    return str(path)


PlugIn = Annotated[str, BeforeValidator(_name)]


def beside(value: Any, folder: Path) -> Any:
    """Return what a file in a folder says, with every `{file: PATH}` of a plug-in in it seen from the current folder.

    A relative path is that of a file beside the one that names it; where there is none, it may be one of the current
    folder, and stays as it is written.
    """
    if isinstance(value, list):
        return [beside(item, folder) for item in value]
    if not isinstance(value, Mapping):
        return value
    name = value.get("file")
    if set(value) != {"file"} or not isinstance(name, str) or not name.endswith(FILE):
        return {key: beside(item, folder) for key, item in value.items()}
    there, here = folder / name, Path(name)
    if here.is_file() and (not there.is_file() or there.samefile(here)):
        return dict(value)
    return {"file": os.path.normpath(there)}


def short_name(name: str) -> str:
    """Return what a reader calls a plug-in: its name, or that of its file.

    >>> short_name("clip"), short_name("nets/mine.py")
    ('clip', 'mine')
    """
    return Path(name).stem if name.endswith(FILE) else name


def file_of(name: str) -> Path | None:
    """Return the file of a plug-in that is named by its path, else None."""
    return Path(name) if name.endswith(FILE) else None
