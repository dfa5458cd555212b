"""What of a run knows the forget set, where it lies, and how it is removed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from negmerge.checkpoints import hash_file
from negmerge.experiment.config import Config, RunConfig
from negmerge.experiment.inputs import DATA, Inputs
from negmerge.experiment.record import rewrite_record
from negmerge.experiment.rundir import RunDir
from negmerge.record.statement import fact, read_statement

PRIVATE_FOLDER = "private"
PRIVATE = "decoded rows, members of the pool, merged vectors: they know what was forgotten"
BASE = "the model before unlearning: it knows what was forgotten"
GIVEN = "the model that was given: it knows what was forgotten"
ROWS = "the data, with the rows that were forgotten"
LISTS = "numbers, ids and hashes of the rows that were forgotten, not their content"
MODEL = "the model of the row {}"


def remove_private(place: RunDir, *, base: bool) -> dict[str, Any]:
    """Remove images, members, vectors and unfinished trainings of a finished run; with `base` the base too.

    A row whose model is the base itself goes with it. Returns which paths were removed, below the run's directory. The
    record says so first: where the removal is interrupted, `negmerge verify` names what is still there, and the same
    command again removes it.
    """
    doomed = [*_folders(place, PRIVATE_FOLDER), *_files(place, "last-epoch.pt")]
    if base:
        bases = _files(place, "base/model.safetensors")
        hashes = {hash_file(path) for path in bases}
        doomed += [
            *bases,
            *(path for path in _files(place, "methods/*/model.safetensors") if hash_file(path) in hashes),
        ]
    removed = [path.relative_to(place.path).as_posix() for path in doomed]
    before = fact(read_statement(place.path), "purged") or []
    rewrite_record(place.path, purged=sorted({*before, *removed}))
    for path in doomed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return {"removed": removed}


def write_on_disk(place: RunDir, config: RunConfig) -> None:
    """Write into the record what of the request is on disk, and where."""
    rewrite_record(place.path, on_disk=[{"path": path, "what": what} for path, what in on_disk(place, config)])


def on_disk(place: RunDir, config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield path and meaning of everything on disk that knows the forget set or was made to forget it."""

    def shown(path: Path) -> str:
        return path.relative_to(place.path).as_posix()

    yield from ((f"{shown(path)}/", PRIVATE) for path in _folders(place, PRIVATE_FOLDER))
    yield from ((shown(path), BASE) for path in _files(place, "base/model.safetensors"))
    if config.base.checkpoint is not None and isinstance(config, Config):
        yield str(config.base.checkpoint), GIVEN
    data = [Path(entry["path"]) for entry in Inputs(place.path).entries if entry["role"] == DATA]
    data = [path for path in data if path.exists()]
    if data:
        together = Path(_common(data))
        count = f" ({len(data):,} files)" if len(data) > 1 else ""
        yield str(together), f"{ROWS}{count}"
    yield "split.json", LISTS
    for path in _files(place, "methods/*/model.safetensors"):
        yield shown(path), MODEL.format(path.parent.name)


def _common(paths: list[Path]) -> str:
    import os

    return str(paths[0]) if len(paths) == 1 else os.path.commonpath(paths)


def _folders(place: RunDir, name: str) -> list[Path]:
    return sorted(path for path in (place.path / name, *place.path.glob(f"seed-*/{name}")) if path.is_dir())


def _files(place: RunDir, name: str) -> list[Path]:
    found = {path for pattern in (name, f"seed-*/{name}") for path in place.path.glob(pattern)}
    if "/" not in name:
        found |= set(place.path.rglob(name))
    return sorted(path for path in found if path.is_file() and "private" not in path.relative_to(place.path).parts)
