"""The record of a run: what it was asked, of what it made which files, with what, when, and how long it took."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError
from negmerge.experiment.config import RunConfig
from negmerge.experiment.dependencies import ROWS, made_from
from negmerge.experiment.inputs import DATA, Inputs
from negmerge.experiment.keys import Keys, digest
from negmerge.experiment.machine import code_hash, machine, peak_rss, versions
from negmerge.experiment.prepare import Material
from negmerge.experiment.rundir import FOLDERS, RunDir, read_json
from negmerge.record.digests import digests_of
from negmerge.record.statement import (
    RECORD,
    Json,
    descriptor,
    fact,
    kind_of,
    make_statement,
    read_statement,
    with_facts,
)
from negmerge.record.verifying import WORKING, listing_hash, verify_folder
from negmerge.record.walking import files_below

STARTED = "started"
EVENTS, PAGE = "events.jsonl", "report.html"
MOST_FILES = 100  # data files that are named one by one; `inputs.json` has all of them
MOST_ROWS = 1000  # forgotten rows that are listed one by one; `split.json` has all of them


def begin(place: RunDir) -> None:
    """Keep when a run was begun, unless it was already."""
    keys = Keys(place.path)
    if keys.get(STARTED) is None:
        keys.put(STARTED, _now())


def write_record(place: RunDir, config: RunConfig, material: Material, command: str) -> None:
    """Write the `record.json` of a run whose results are there; see docs/record.md for what stands where."""
    folder = place.path
    started = Keys(folder).get(STARTED) or _now()
    names = _outputs(folder)
    dependencies = _dependencies(folder, material)
    roles = {entry["name"]: entry["annotations"]["role"] for entry in dependencies}
    sources = made_from(config, names, roles)
    spent, peak = _spent(folder, started)
    statement = make_statement(
        "run",
        [_file(folder, name, sources[name]) for name in names],
        external={"command": command, "config": config.resolved()},
        internal={"seeds": config.seeds},
        dependencies=dependencies,
        versions=versions(),
        code=[descriptor("negmerge", {"sha256": code_hash()})],
        metadata={
            "invocationId": digest([config.resolved(), started]),
            "startedOn": started,
            "finishedOn": _now(),
        },
        byproducts=[*_logs(folder), *_shown(folder)],
        facts={
            "machine": machine(material.device),
            "stages": spent,
            "seconds": sum(stage["seconds"] for stage in spent),
            "peak_rss": max(peak_rss(), peak),
            "forget": _forgotten(folder, material),
        },
    )
    _write(folder, statement)


def rewrite_record(directory: Path, *, purged: list[str] | None = None, **facts: Any) -> None:
    """Add facts to the record of a finished run.

    Of what is `purged` (files, or folders with all that is in them, below the run's directory) the entries are no
    longer among its outputs, but among what is gone.
    """
    statement = read_statement(directory)
    changed = with_facts(statement, **facts)
    if purged is not None:
        leaving = [entry for entry in statement["subject"] if _is_in(entry["name"], purged)]
        gone = {entry["name"]: entry for entry in [*(fact(statement, "gone") or ()), *leaving]}
        kept = [entry for entry in statement["subject"] if entry["name"] not in gone]
        changed = {**with_facts(changed, purged=purged, gone=[gone[name] for name in sorted(gone)]), "subject": kept}
    if changed != statement:
        _write(directory, changed)


def add_byproducts(directory: Path) -> None:
    """Bring the entries of the page and the exported models in a run's directory up to date.

    Those of logs stay: they are of what a log held when the run ended. A record that is of no run is left alone.
    """
    if not has_statement(directory):
        return
    statement = read_statement(directory)
    details = statement["predicate"]["runDetails"]
    logs = [entry for entry in details["byproducts"] if (entry.get("annotations") or {}).get("grows")]
    shown = _shown(directory)
    changed = {
        **statement,
        "predicate": {**statement["predicate"], "runDetails": {**details, "byproducts": [*logs, *shown]}},
    }
    if changed != statement:
        _write(directory, changed)


def has_statement(directory: Path) -> bool:
    """Whether a run has its record, of this version: one of an older version is made anew."""
    try:
        return kind_of(read_statement(directory)) == "run"
    except InputError:
        return False


def verify_run(directory: Path) -> int:
    """Compare every file of a run with its record, as `verify_folder` does, and return how many were compared."""
    return verify_folder(directory).count


def _write(folder: Path, statement: Json) -> None:
    write_bytes_atomic(folder / RECORD, (json.dumps(statement, indent=1) + "\n").encode())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_in(name: str, places: Sequence[str]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def _outputs(folder: Path) -> list[str]:
    """Return the names of the files that a run made, sorted; not what it needs to go on, nor what it logs and shows.

    Folders of the run that were moved behind a link are looked into; what else is behind links is none of the run's.
    """
    exported = [path.parent.relative_to(folder) for path in _exports(folder)]
    beside = (*WORKING["run"], EVENTS, PAGE)
    found = []
    for name in sorted(files_below(folder, _is_of_a_run)):
        path = Path(name)
        if path.name in beside or path.name.endswith(".partial") or not (folder / path).is_file():
            continue
        if not any(path.is_relative_to(place) for place in exported):
            found.append(name)
    return found


def _is_of_a_run(name: str) -> bool:
    """Whether a folder of this name, below the directory of a run, is one that runs write into."""
    first, *further = name.split("/")
    return first in FOLDERS or (first.startswith("seed-") and (not further or further[0] in FOLDERS))


def _exports(folder: Path) -> list[Path]:
    """Return the records of models that were exported into the run's own directory."""
    return sorted(folder.glob(f"*/{RECORD}"))


def _file(folder: Path, name: str, sources: Sequence[str] = (), **about: Any) -> Json:
    found = digests_of(folder / name)
    return descriptor(
        name, {"sha256": found.sha256}, bytes=found.bytes, tree=found.tree, made_from=list(sources), **about
    )


def _logs(folder: Path) -> list[Json]:
    """Return the entries of the logs, which grow."""
    logs = [folder / EVENTS, *sorted(folder.glob(f"seed-*/{EVENTS}"))]
    return [_file(folder, path.relative_to(folder).as_posix(), grows=True) for path in logs if path.is_file()]


def _shown(folder: Path) -> list[Json]:
    """Return the entries of the page, and of exported models by their records."""
    pages = [PAGE] if (folder / PAGE).is_file() else []
    records = [path.relative_to(folder).as_posix() for path in _exports(folder)]
    return [_file(folder, name) for name in (*pages, *records)]


def _dependencies(folder: Path, material: Material) -> list[Json]:
    """Return the inputs: files that the config names, those of the data, and the rows that these came to."""
    found = [_input(entry) for entry in material.inputs]
    data = [entry for entry in Inputs(folder).entries if entry["role"] == DATA and "sha256" in entry]
    if len(data) <= MOST_FILES:
        return [*found, *(_input(entry) for entry in data)]
    hashes = {entry["path"]: entry["sha256"] for entry in data}
    about = {"role": DATA, "files": len(data), "bytes": sum(entry["bytes"] for entry in data)}
    return [*found, descriptor(DATA, {"sha256": listing_hash(hashes)}, listed_in="inputs.json", **about)]


def _input(entry: Mapping[str, Any]) -> Json:
    """Return the descriptor of an input; one that is no file has the hash that its rows or its module were given."""
    path, role = entry["path"], entry.get("role", ROWS)
    if "sha256" not in entry:
        return descriptor(path, {"negmerge": entry["hash"]}, role=role, bytes=entry["bytes"])
    return descriptor(path, {"sha256": entry["sha256"]}, role=role, path=path, bytes=entry["bytes"], tree=entry["hash"])


def _forgotten(folder: Path, material: Material) -> Json:
    """Return what is said of the rows to forget: how many, and each by id and hash, never by content."""
    about: Json = {"kind": material.split.kind, "rows": len(material.split.forget), "split": material.split.hash()}
    file = folder / "split.json"
    if not file.is_file():
        return about
    listed = read_json(file).get("forgotten") or []
    if len(listed) > MOST_ROWS:
        return {**about, "listed_in": "split.json"}
    return {**about, "listed": listed}


def _spent(folder: Path, started: str) -> tuple[list[Json], int]:
    """Return the seconds of each stage, over all calls since the run was begun, and the largest memory of the others.

    From the events of the run and of its seeds: a stage that was interrupted counts from when it was done again.
    """
    since = datetime.strptime(started, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    spent: dict[tuple[str, str], float] = {}
    peak = 0
    for file in [folder / EVENTS, *sorted(folder.glob(f"seed-*/{EVENTS}"))]:
        for line in file.read_text().splitlines() if file.is_file() else ():
            event = json.loads(line)
            if event["event"] == "stage-done" and event["time"] >= since:
                key = file.parent.name if file.parent != folder else "", event["stage"]
                spent[key] = spent.get(key, 0.0) + event["seconds"]
                peak = max(peak, event.get("peak_rss", 0))
    return [{"name": f"{seed}: {name}" if seed else name, "seconds": n} for (seed, name), n in spent.items()], peak
