"""The files that a run reads: hashed when they are read, and compared whenever it goes on."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError, listing
from negmerge.experiment.config import Config
from negmerge.experiment.keys import state_of
from negmerge.experiment.methods import files_of
from negmerge.plug_in import file_of
from negmerge.record.digests import digests_of
from negmerge.tasks.image_classification.folders import files_below
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.settings import source_names

DATA = "data"
BASE, REFERENCE = "base.checkpoint", "reference.checkpoint"
MODEL, FREE = "model", "methods"  # files of methods and scores may change: what hangs on them is made anew


@dataclass(frozen=True)
class InputFile:
    """A file by the key of the config that names it, the name that the record shows, and its path."""

    role: str
    shown: str
    path: Path

    def entry(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return role, path, bytes, hashes and state; the hashes of `known` where the file is untouched since."""
        state = state_of(self.path)
        if known is not None and known["state"] == state and "sha256" in known:
            hashes = {"hash": known["hash"], "sha256": known["sha256"]}
        else:
            digests = digests_of(self.path)
            hashes = {"hash": digests.tree, "sha256": digests.sha256}
        if state_of(self.path) != state:
            raise InputError(f"{self.path} changes while it is read; try again when nothing writes to it")
        return {"role": self.role, "path": self.shown, "bytes": state[0], **hashes, "state": state}


def named_files(config: Config) -> list[InputFile]:
    """Return the files that the config names one by one, and those of the family's model, as far as they are there."""
    data = config.data
    named: list[tuple[str, Path | None]] = [
        (BASE, config.base.checkpoint),
        ("data.split", data.split),
        (REFERENCE, config.reference.checkpoint if config.reference else None),
        (BASE, config.base.previous / "record.json" if config.base.previous else None),
    ]
    for key, rule in (("data.forget", data.forget), ("data.retain", data.retain)):
        if rule is not None:
            named += [(f"{key}.files", rule.files), (f"{key}.rows", rule.rows)]
    named += [("task", file_of(config.task))]
    named += [("data.source", file_of(name)) for name in source_names(data)]
    named += [(FREE, file_of(name)) for name in _plug_ins(config)]
    named += [(FREE, path) for method in config.methods for path in files_of(method.name, method.settings)]
    rows = [method.projected.rows for method in config.methods if method.projected is not None]
    named += [(FREE, path) for path in rows if isinstance(path, Path)]
    files = preparing_of(config.model, config.task).model_files(config.model)
    found = [InputFile(role, str(file), file) for role, path in named if path is not None for file in _all_of(path)]
    return [*found, *(InputFile(MODEL, shown, path) for shown, path in files.items())]


def _plug_ins(config: Config) -> list[str]:
    tests = [test.name for test in config.evidence.tests]
    return [*(method.name for method in config.methods), *config.evaluation.scores, *tests]


def data_files(config: Config) -> list[InputFile]:
    """Return the files that the sources read: those that a source lists, or whatever its settings name."""
    data = config.data
    sources = [(data.source, data.source_settings)]
    if data.forget is not None and data.forget.source is not None:
        sources.append((data.forget.source, data.forget.source_settings))
    found: list[Path] = []
    for name, values in sources:
        file = preparing_of(config.model, config.task).source_file(name)
        settings = file.Settings(**values)
        lists = getattr(file, "files", None)
        paths = [value for _, value in settings if isinstance(value, Path)]
        found += lists(settings) if lists else [one for path in paths for one in _all_of(path)]
    return [InputFile(DATA, str(path), path) for path in dict.fromkeys(found) if path.is_file()]


def _all_of(path: Path) -> list[Path]:
    """Return a file, or all files of a folder in the order of their names; a path that is not there as it is."""
    return sorted(files_below(path)) if path.is_dir() else [path]


class Inputs:
    """The `inputs.json` of a run: role, path, bytes, hash and state of every file that it was begun with."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "inputs.json"

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What was read, in the order of reading; nothing before a run has begun."""
        if not self.file.exists():
            return []
        found: list[dict[str, Any]] = json.loads(self.file.read_text())["files"]
        return found

    def write(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Keep what was read."""
        write_bytes_atomic(self.file, json.dumps({"format": 1, "files": list(entries)}).encode())

    def differences(self, now: Iterable[InputFile]) -> list[tuple[str, str]]:
        """Return (role, line) for each file that is not what the run was begun with, and for each that is new.

        A file that is gone is no difference: what was read of it is in the run. Files of a model are known by their
        name alone, for a model of the hub may lie in another folder by now.
        """
        before = {_place(entry["role"], entry["path"]): entry for entry in self.entries}
        roles = {entry["role"] for entry in before.values()}
        found = []
        for file in now:
            known = before.get(_place(file.role, file.shown))
            if known is None:
                if file.role in roles and file.role != FREE:
                    found.append((file.role, f"{file.shown} is new ({file.role})"))
            elif file.path.is_file() and file.role != FREE and file.entry(known)["hash"] != known["hash"]:
                found.append((file.role, f"{file.shown} changed ({file.role})"))
        return found


def _place(role: str, shown: str) -> tuple[str, str]:
    return role, Path(shown).name if role == MODEL else shown


def refuse(folder: Path, differences: Sequence[tuple[str, str]]) -> None:
    """Raise InputError that names what changed under a run."""
    raise InputError(
        listing(
            f"{folder} was begun with other files; put back what was there, give another directory with -o, or begin "
            "anew with --fresh:",
            [line for _, line in differences],
        )
    )
