"""Comparing a merged model with its record: tensors, names, dtypes, shapes, all shards together, files beside."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.checkpoints import Checkpoint, hash_file, open_checkpoint
from negmerge.checkpoints.adapter import is_adapter, weights_in
from negmerge.checkpoints.pieces import hash_pieces
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.errors import InputError, listing
from negmerge.merging.output.record import KEY, layout_hash, recipe_beside

HASH = re.compile(r"(blake3-tree|sha256-tree):[0-9a-f]{64}")


@dataclass(frozen=True)
class Verified:
    """A model that is as recorded: how many hashes were compared, and the SHA-256 of each of its files by name."""

    count: int
    sha256: dict[str, str]


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a model that negmerge merged, or None for any other checkpoint."""
    checkpoint = _open(path)
    try:
        return _record_in(checkpoint.metadata)
    finally:
        checkpoint.close()


def verify_model(path: Path) -> Verified:
    """Compare a merged model, a file or a folder, with its record.

    Raises InputError that names what changed, is missing or was added, for a model without a record too.
    """
    if not path.is_dir():
        record = _record_of(path, path)
        problems, count = _differences(path, record)
        files = [path]
        recipe = recipe_beside(path)
        if "recipe" in record and recipe.is_file():
            problems += [f"{recipe.name} was changed"] if hash_pieces(recipe) != record["recipe"] else []
            count += 1
            files.append(recipe)
    else:
        problems, count, files = _verify_folder(path)
    if len(problems) == 1:
        raise InputError(f"{path}: {problems[0]}")
    if problems:
        raise InputError(listing(f"{path} is not what its record says, in {len(problems)} places:", problems))
    with ThreadPoolExecutor() as threads:
        digests = list(threads.map(_sha256, files))
    names = [str(file.relative_to(path)) if path.is_dir() else file.name for file in files]
    return Verified(count, dict(zip(names, digests, strict=True)))


def _verify_folder(folder: Path) -> tuple[list[str], int, list[Path]]:
    """Return the differences of a folder, how many hashes were compared, and its files."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{folder} holds no .safetensors; give a run directory or a merged model")
    record = _record_of(weights[0], folder)
    if "weights" not in record:  # written before records were of the whole folder
        found = [_differences(file, _record_of(file, file)) for file in weights]
        return [line for lines, _ in found for line in lines], sum(count for _, count in found), weights
    problems, count = [], 0
    listed, beside = record["weights"], record["beside"]
    if not isinstance(listed, dict) or not isinstance(beside, dict):
        raise InputError(f"{folder} carries no whole record of negmerge; give a merged model")
    for name, hashes in listed.items():
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
            continue
        if _record_of(folder / name, folder / name) != record:
            problems.append(f"{name} is of another merge: its record differs from that of {weights[0].name}")
            continue
        lines, compared = _differences(folder / name, hashes)
        problems += lines
        count += compared
    for name, expected in beside.items():
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif hash_pieces(folder / name) != expected:
            problems.append(f"{name} was changed")
        else:
            count += 1
    there = sorted(file for file in folder.rglob("*") if file.is_file())
    known = {*listed, *beside}
    names = [file.relative_to(folder).as_posix() for file in there]
    problems += [f"{name} was added" for name in names if name not in known and not _is_hidden(name)]
    return problems, count, there


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _differences(file: Path, record: Mapping[str, Any]) -> tuple[list[str], int]:
    """Return how a file of weights differs from its hashes in a record, and how many were compared."""
    expected = str(record.get("data"))
    if not HASH.fullmatch(expected):
        raise InputError(f"{file} carries no record of negmerge; give a run directory or a merged model")
    opened = SafetensorsFile(file)
    try:
        start = opened.data_start
        if expected.startswith("sha256-tree:"):
            found = hash_file(file, start)
            changed = [] if found == expected else [_changed(file, found, expected)]
            return changed, 1
        problems = []
        layout = [(name, opened.dtype(name), opened.shape(name)) for name in opened.names_by_place]
        if layout_hash(layout) != record.get("layout"):
            problems.append(f"{file.name}: names, dtypes or shapes of its tensors were changed")
        (whole,) = opened.opened()
        found = hash_pieces(file, whole.tensors, start, threads=os.cpu_count() or 1)
        if found != expected:
            problems.append(_changed(file, found, expected))
        return problems, 2
    finally:
        opened.close()


def _changed(file: Path, found: str, expected: str) -> str:
    return f"{file.name}: the data have hash {found}, the record says {expected}; it was changed"


def _record_of(file: Path, shown: Path) -> dict[str, Any]:
    record = read_record(file)
    if record is None:
        raise InputError(f"{shown} carries no record of negmerge; give a run directory or a merged model")
    return record


def _record_in(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    try:
        record = json.loads(metadata.get(KEY, ""))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _open(path: Path) -> Checkpoint:
    """Open a model, or the tensors of an adapter."""
    return open_checkpoint((is_adapter(path) and weights_in(path)) or path)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
