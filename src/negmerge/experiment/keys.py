"""What each stage of a run was made of: kept beside it, and compared before it is taken over."""

import hashlib
import json
from pathlib import Path
from typing import Any

from negmerge.checkpoints import hash_file, write_bytes_atomic
from negmerge.errors import InputError

FILES = "files"


def digest(value: Any) -> str:
    """Return a short hash of plain JSON values, whatever the order of their keys.

    >>> digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def state_of(path: Path) -> list[int]:
    """Return what tells without reading whether a file, or a folder, is untouched: size, times of change, and place.

    The time of the last change of its status cannot be set back, as that of its content can.
    """
    files = [path] if not path.is_dir() else sorted(file for file in path.rglob("*") if file.is_file())
    found = [file.stat() for file in files]
    return [n for one in found for n in (one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino)]


def content_hash(path: Path) -> str:
    """Return the hash of a file, or of the names and contents of all files in a folder."""
    if not path.is_dir():
        return hash_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest({file.relative_to(path).as_posix(): hash_file(file) for file in files})


class Keys:
    """The keys of a folder of a run, in its `keys.json`, and the hashes of files that the run made in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "keys.json"

    def get(self, name: str) -> Any:
        """Return the key of a stage, None where there is none."""
        return self._read().get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep the key of a stage: before it is begun, so that whatever lies there was made of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(self.file, json.dumps({**self._read(), name: value}, indent=1).encode())

    def content(self, path: Path) -> str:
        """Return the hash of a file, or a folder, that the run made, and keep it.

        A file that is untouched since is not read again. Raises InputError where its content is not what it was.
        """
        name, state = path.relative_to(self.folder).as_posix(), state_of(path)
        known = (self.get(FILES) or {}).get(name)
        if known is not None and known["state"] == state:
            return str(known["hash"])
        found = content_hash(path)
        if known is not None and known["hash"] != found:
            raise InputError(
                f"{path} changed since the run made it; put back what was there, or begin anew with --fresh"
            )
        self.put(FILES, {**(self.get(FILES) or {}), name: {"hash": found, "state": state}})
        return found

    def forget(self, path: Path) -> None:
        """Drop the hash of a file that is about to be made anew."""
        files = dict(self.get(FILES) or {})
        if files.pop(path.relative_to(self.folder).as_posix(), None) is not None:
            self.put(FILES, files)

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.file.read_text())
        except FileNotFoundError:
            return {}
        return found
