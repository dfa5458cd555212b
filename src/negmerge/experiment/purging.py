"""What of a run knows the forget set, where it lies, and how it is removed."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from negmerge.checkpoints import hash_file
from negmerge.errors import InputError
from negmerge.evidence.restoring import restore
from negmerge.experiment.inputs import DATA, Inputs
from negmerge.experiment.inputs import MODEL as MODEL_FILE
from negmerge.experiment.record import rewrite_record
from negmerge.experiment.rundir import RunDir
from negmerge.record.statement import fact, read_statement

PRIVATE_FOLDER, BASE_FILE = "private", "base/model.safetensors"
PRIVATE = "decoded rows, members of the pool, merged vectors: they know what was forgotten"
BASE = "the model before unlearning: it knows what was forgotten"
GIVEN = "the model that was given: it knows what was forgotten"
ROWS = "the data, with the rows that were forgotten"
LISTS = "numbers, ids and hashes of the rows that were forgotten, not their content"
MODEL = "the model of the row {}"


def remove_private(place: RunDir, *, base: bool, kept: str = "") -> dict[str, Any]:
    """Remove images, members, vectors and unfinished trainings of a finished run; with `base` the base too.

    A row whose model is the base itself goes with it, and so do rows that give it back beside another one (two that
    subtracted the same by different α); of those the row `kept` stays, or else the first. Returns which paths were
    removed, below the run's directory. The record says so first: where the removal is interrupted, `negmerge verify`
    names what is still there, and the same command again removes it. Raises InputError where one of them, or anything
    in one of them, is a link.
    """
    statement = read_statement(place.path)
    again = [place.path / entry["name"] for entry in fact(statement, "gone") or ()]
    doomed = [*_folders(place, PRIVATE_FOLDER), *_files(place, "last-epoch.pt")]
    if base:
        bases = _files(place, BASE_FILE)
        hashes = {hash_file(path) for path in bases}
        rows = _files(place, "methods/*/model.safetensors")
        copies = [path for path in rows if hash_file(path) in hashes]
        doomed += [*bases, *copies, *_telling(bases, [path for path in rows if path not in copies], kept)]
    within = (path for one in doomed for path in (one, *(one.rglob("*") if one.is_dir() else ())))
    links = [path for path in within if path.is_symlink()]
    if links:
        raise InputError(f"{links[0]} is a link: what it leads to would stay; put that in its place, and purge again")
    doomed += [path for path in again if path.is_file() and not any(path.is_relative_to(one) for one in doomed)]
    removed = [path.relative_to(place.path).as_posix() for path in doomed]
    before = fact(statement, "purged") or []
    rewrite_record(place.path, purged=sorted({*before, *removed}))
    for path in doomed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return {"removed": removed}


def _telling(bases: list[Path], rows: list[Path], kept: str) -> list[Path]:
    """Return the models of rows that, beside one that stays, give the base of their seed back."""
    staying: list[Path] = []
    found = []
    for row in sorted(rows, key=lambda path: path.parent.name != kept):
        base = row.parents[2] / BASE_FILE
        pairs = [(other, row) for other in staying if other.parents[2] == row.parents[2]] if base in bases else []
        restored = (restore(base, one, [other]) for pair in pairs for one, other in (pair, pair[::-1]))
        if any(one is not None and one.restores for one in restored):
            found.append(row)
        else:
            staying.append(row)
    return sorted(found)


def write_on_disk(place: RunDir, config: Mapping[str, Any]) -> None:
    """Write into the record what of the request is on disk, and where; `config` is that of the run, resolved."""
    rewrite_record(place.path, on_disk=[{"path": path, "what": what} for path, what in left_on_disk(place, config)])


def left_on_disk(place: RunDir, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return path and meaning of everything on disk that knows the forget set or was made to forget it."""
    return list(_on_disk(place, config))


def _on_disk(place: RunDir, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:

    def shown(path: Path) -> str:
        real = (
            path.resolve()
        )  # a folder that was moved behind a link lies elsewhere, and that is where it is to be found
        inside = real.is_relative_to(place.path.resolve())
        return path.relative_to(place.path).as_posix() if inside else str(real)

    yield from ((f"{shown(path)}/", PRIVATE) for path in _folders(place, PRIVATE_FOLDER))
    yield from ((shown(path), BASE) for path in _files(place, BASE_FILE))
    inputs = [(entry["role"], Path(entry["path"])) for entry in Inputs(place.path).entries]
    if config["base"].get("checkpoint") is not None and "model" in config:
        yield str(config["base"]["checkpoint"]), GIVEN
    elif config["base"].get("pretrained"):
        given = [path for role, path in inputs if role == MODEL_FILE and path.exists()]
        yield from ((str(path), GIVEN) for path in ([Path(_common(given))] if given else []))
    data = [path for role, path in inputs if role == DATA and path.exists()]
    if data:
        together = Path(_common(data))
        count = f" ({len(data):,} files)" if len(data) > 1 else ""
        yield str(together), f"{ROWS}{count}"
    yield "split.json", LISTS
    bases = {hash_file(path) for path in _files(place, BASE_FILE)}
    for path in _files(place, "methods/*/model.safetensors"):
        copy = bool(bases) and hash_file(path) in bases
        yield shown(path), BASE if copy else MODEL.format(path.parent.name)


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
