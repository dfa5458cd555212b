"""How a config names a plug-in: by its registered name, or by the path of its file."""

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


def short_name(name: str) -> str:
    """Return what a reader calls a plug-in: its name, or that of its file.

    >>> short_name("clip"), short_name("nets/mine.py")
    ('clip', 'mine')
    """
    return Path(name).stem if name.endswith(FILE) else name


def file_of(name: str) -> Path | None:
    """Return the file of a plug-in that is named by its path, else None."""
    return Path(name) if name.endswith(FILE) else None
