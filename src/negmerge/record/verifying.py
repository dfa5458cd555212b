"""Comparing a folder with its record: what was changed, is missing, or was added."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.errors import InputError, listing
from negmerge.record.digests import digests_of, digests_of_all
from negmerge.record.statement import RECORD, SIGNATURE, Json, fact, kind_of, read_statement
from negmerge.record.walking import files_below

INPUTS = "inputs.json"
# What a run needs to go on, and changes without being a result; and what stands beside a record because it is of it.
WORKING = {"run": (RECORD, ".lock", "keys.json"), "export": (RECORD, SIGNATURE)}


@dataclass(frozen=True)
class Verified:
    """A folder that is as recorded: how many hashes were compared, and the SHA-256 of its files by name.

    `signed`: whether a signature lies in it, which this does not check.
    """

    count: int
    sha256: dict[str, str]
    signed: bool = False


def has_record(folder: Path) -> bool:
    """Whether a folder has the record of a run or of an exported model, whole or not."""
    return (folder / RECORD).is_file()


def verify_folder(folder: Path) -> Verified:
    """Compare every file of a run, or of an exported model, with the record that lies in the folder.

    Outputs must be there and as they were; a log may have grown; nothing else may be there, but what a run needs to go
    on. Of the inputs those that are still there must be unchanged. Exported models inside of a run are compared with
    records of their own. A folder of a run may have been moved behind a link of its name: what lies there is compared,
    added files included. No other link to a folder is entered, and of an exported model none is: what is shipped must
    lie in it.

    Raises InputError that names what was changed, is missing or was added.
    """
    problems, found = _compare(folder)
    if problems:
        raise InputError(listing(f"{folder}: {len(problems)} files are not what the record says:", problems))
    return found


def _compare(folder: Path) -> tuple[list[str], Verified]:
    statement = read_statement(folder)
    kind = kind_of(statement)
    assert kind is not None
    byproducts = {entry["name"]: entry for entry in statement["predicate"]["runDetails"]["byproducts"]}
    nested = [Path(name).parent for name in byproducts if Path(name).name == RECORD]
    expected = {entry["name"]: entry for entry in statement["subject"]}
    moved = {parent.as_posix() for name in expected for parent in Path(name).parents} if kind == "run" else set()
    found_there = files_below(folder, lambda name: name in moved)
    there = sorted(name for name in found_there if not any(Path(name).is_relative_to(place) for place in nested))
    problems, sha256 = [], {}
    for name, digests in zip(
        known := [n for n in there if n in expected and _is_file(folder / n)], _digests(folder, known), strict=True
    ):
        sha256[name] = digests
        if digests != expected[name]["digest"].get("sha256"):
            problems.append(f"{name} was changed")
    problems += [f"{name} is missing" for name in expected if name not in sha256]
    gone = {entry["name"] for entry in fact(statement, "gone") or ()}
    left = [name for name in there if name in gone and name not in expected]
    problems += [f"{name} was to be removed and is there: do it again with --purge" for name in left]
    working = {*WORKING[kind], *byproducts, *gone}
    # A file that is not yet whole lies at .NAME.partial; nothing of an exported model is unfinished.
    strangers = [n for n in there if n not in expected and n not in working and not (kind == "run" and _unfinished(n))]
    problems += [f"{name} was added" for name in strangers]
    problems += [line for entry in byproducts.values() for line in _byproduct(folder, entry)]
    lines, inputs = _inputs(folder, statement) if kind == "run" else ([], 0)
    problems += lines
    count = len(sha256) + len(byproducts) + inputs
    for place in nested:
        lines, inner = _compare(folder / place) if has_record(folder / place) else ([], Verified(0, {}))
        problems += [f"{place}/{line}" for line in lines]
        count += inner.count
        sha256 |= {f"{place}/{name}": value for name, value in inner.sha256.items()}
    return problems, Verified(count, sha256, (folder / SIGNATURE).is_file())


def _is_file(path: Path) -> bool:
    """Whether a file can be read at a path: not a pipe, nor a link that leads nowhere or to itself."""
    try:
        return path.is_file()
    except OSError:
        return False


def _digests(folder: Path, names: list[str]) -> list[str]:
    return [one.sha256 for one in digests_of_all([folder / name for name in names])]


def _unfinished(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(".partial")


def _byproduct(folder: Path, entry: Json) -> list[str]:
    """Return how a byproduct differs: of a log, that grows, what it held is compared."""
    file, about = folder / entry["name"], entry.get("annotations") or {}
    if not file.is_file():
        return [f"{entry['name']} is missing"]
    grown = about.get("grows")
    if grown and file.stat().st_size < about["bytes"]:
        return [f"{entry['name']} was changed"]
    found = digests_of(file, about["bytes"] if grown else None).sha256
    return [] if found == entry["digest"].get("sha256") else [f"{entry['name']} was changed"]


def _inputs(folder: Path, statement: Json) -> tuple[list[str], int]:
    """Return which inputs changed, of those that are still there, and how many were compared."""
    listed: dict[Path, str] = {}
    for entry in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        path = (entry.get("annotations") or {}).get("path")
        if path is not None and "sha256" in entry["digest"]:
            listed[Path(path)] = entry["digest"]["sha256"]
    listed |= {Path(entry["path"]): entry["sha256"] for entry in _of_inputs_json(folder / INPUTS)}
    there = [path for path in listed if path.is_file()]
    now = [one.sha256 for one in digests_of_all(there)]
    changed = [f"{path} was changed (input)" for path, value in zip(there, now, strict=True) if value != listed[path]]
    return changed, len(there)


def _of_inputs_json(file: Path) -> list[dict[str, Any]]:
    try:
        files = json.loads(file.read_text())["files"]
        return [entry for entry in files if "sha256" in entry and isinstance(entry.get("path"), str)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # its own hash tells that it is missing, or was changed


def listing_hash(hashes: dict[str, str]) -> str:
    """Return the SHA-256 of the lines `hash  name` of files, sorted by name: that of what sha256sum prints of them."""
    lines = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return hashlib.sha256(lines.encode()).hexdigest()
