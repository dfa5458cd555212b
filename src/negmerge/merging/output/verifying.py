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
    records = {file.name: own for file in weights if (own := read_record(file)) is not None}
    if not records:
        raise InputError(f"{folder} carries no record of negmerge; give a run directory or a merged model")
    if not any("weights" in record for record in records.values()):  # written before records were of the whole folder
        found = [_differences(file, _record_of(file, file)) for file in weights]
        return [line for lines, _ in found for line in lines], sum(count for _, count in found), weights
    there = sorted(file for file in folder.rglob("*") if file.is_file())
    names = [file.relative_to(folder).as_posix() for file in there]
    hashes = {name: hash_pieces(folder / name) for name in names if folder / name not in weights}
    record, spokesman = _record_of_most(records, hashes, folder)
    problems, count = [], 0
    listed, beside = record["weights"], record["beside"]
    for name, expected in listed.items():
        if name not in records:
            there_is = folder / name in weights
            problems.append(f"{name} {'carries no record: it was replaced' if there_is else 'is missing'}")
        elif records[name] != record:
            problems.append(f"{name} is of another merge: its record differs from that of {spokesman}")
        else:
            lines, compared = _differences(folder / name, expected)
            problems += lines
            count += compared
    for name, expected in beside.items():
        if name not in hashes:
            problems.append(f"{name} is missing")
        elif hashes[name] != expected:
            problems.append(f"{name} was changed")
        else:
            count += 1
    known = {*listed, *beside}
    problems += [f"{name} was added" for name in names if name not in known and not _is_hidden(name)]
    return problems, count, there


def _record_of_most(
    records: Mapping[str, dict[str, Any]], hashes: Mapping[str, str], folder: Path
) -> tuple[dict[str, Any], str]:
    """Return the record that most shards carry (of two, the one that the files beside fit) and the first such shard.

    Raises InputError for records that do not list the files of a folder.
    """

    def support(record: Mapping[str, Any]) -> tuple[int, int]:
        beside = record["beside"]
        return list(records.values()).count(dict(record)), sum(hashes.get(name) == beside[name] for name in beside)

    of_folders = {name: record for name, record in records.items() if "weights" in record}
    for record in of_folders.values():
        weights, beside = record["weights"], record.get("beside")
        if not (
            isinstance(weights, dict)
            and isinstance(beside, dict)
            and all(isinstance(w, dict) for w in weights.values())
        ):
            raise InputError(f"{folder} carries no whole record of negmerge; give a merged model")
    name = max(of_folders, key=lambda name: support(of_folders[name]))
    return of_folders[name], name


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
