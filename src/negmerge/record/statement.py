"""A record as an in-toto Statement v1 with a SLSA provenance v1 predicate: its shape, and what readers take from it.

What these do not have stands under names that begin with `negmerge_`, as SLSA asks of extensions. Imports no torch.

Sources: in-toto Attestation Framework, Statement v1; SLSA, Provenance v1 (slsa.dev/spec/v1.0/provenance).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from negmerge.errors import InputError

Json = dict[str, Any]
Kind = Literal["run", "export"]

RECORD = "record.json"
SIGNATURE = "model.sig"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "urn:negmerge"
BUILD: dict[Kind, str] = {"run": f"{BUILDER}:run:1", "export": f"{BUILDER}:export:1"}
PREFIX = "negmerge_"
DATA, PRIVATE = "data", "private"  # the role of files of data, and the folder of what knows the rows to forget
FACTS = ("machine", "stages", "peak_rss", "seconds", "forget", "on_disk", "purged", "gone", "of")


def make_statement(
    kind: Kind,
    subject: Sequence[Json],
    *,
    external: Mapping[str, Any],
    internal: Mapping[str, Any],
    dependencies: Sequence[Json],
    versions: Mapping[str, str],
    code: Sequence[Json],
    metadata: Mapping[str, str],
    byproducts: Sequence[Json] = (),
    facts: Mapping[str, Any],
) -> Json:
    """Return a statement on the files in `subject`.

    `subject`, `dependencies`, `code` and `byproducts` are resource descriptors (see `descriptor`). `external` is what
    whoever asked has chosen (command, config), `internal` what followed (seeds), `facts` are values of `FACTS`.
    """
    return {
        "_type": STATEMENT,
        "subject": list(subject),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD[kind],
                "externalParameters": dict(external),
                "internalParameters": dict(internal),
                "resolvedDependencies": list(dependencies),
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": dict(versions), "builderDependencies": list(code)},
                "metadata": dict(metadata),
                "byproducts": list(byproducts),
            },
            **{PREFIX + name: value for name, value in facts.items()},
        },
    }


def descriptor(name: str, digest: Mapping[str, str], **annotations: Any) -> Json:
    """Return a resource descriptor: a name, digests by algorithm, and annotations, of which empty ones are left out."""
    kept = {key: value for key, value in annotations.items() if value not in (None, "", [])}
    return {"name": name, "digest": dict(digest), **({"annotations": kept} if kept else {})}


def read_statement(path: Path) -> Json:
    """Return the statement in a file, or in the record.json of a folder.

    Raises InputError where there is none, where it is damaged, and for one of another builder or an older version.
    """
    file = path / RECORD if path.is_dir() else path
    try:
        found = json.loads(file.read_text())
    except OSError:
        raise InputError(
            f"{path} has no {RECORD}; give the directory of a finished run, or an exported model"
        ) from None
    except ValueError:
        found = None
    if isinstance(found, dict) and "outputs" in found and "_type" not in found:
        raise InputError(f"{file} is of an older version; run `negmerge run` with the same config again")
    if kind_of(found) is None or not _is_whole(found):
        raise InputError(f"{file} is damaged, or no record of negmerge; run or export again")
    whole: Json = found
    return whole


def kind_of(statement: Any) -> Kind | None:
    """Return what a statement is of; None for anything that is no statement of negmerge."""
    try:
        build = statement["predicate"]["buildDefinition"]["buildType"]
        if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
            return None
    except (KeyError, TypeError):
        return None
    return next((kind for kind, known in BUILD.items() if known == build), None)


def _is_whole(statement: Json) -> bool:
    try:
        details, facts = statement["predicate"]["runDetails"], statement["predicate"]
        files = [*statement["subject"], *details["byproducts"], *(fact(statement, "gone") or ())]
        inputs = facts["buildDefinition"]["resolvedDependencies"]
        return all(_is_descriptor(entry) for entry in [*files, *inputs]) and all(
            _is_below(one["name"]) for one in files
        )
    except (KeyError, TypeError):
        return False


def _is_descriptor(entry: Json) -> bool:
    about = _about(entry)
    typed = isinstance(entry["name"], str) and isinstance(entry["digest"], dict) and isinstance(about, dict)
    return (
        typed
        and isinstance(about.get("path", ""), str)
        and (not about.get("grows") or isinstance(about.get("bytes"), int))
    )


def _is_below(name: str) -> bool:
    """Whether a name is that of a file below the folder of a record, and not the record itself."""
    place = PurePosixPath(name)
    return bool(place.parts) and not place.is_absolute() and ".." not in place.parts and str(place) != RECORD


def fact(statement: Mapping[str, Any], name: str) -> Any:
    """Return one of the `FACTS` of a statement, None where it does not have it."""
    return statement["predicate"].get(PREFIX + name)


def with_facts(statement: Json, **facts: Any) -> Json:
    """Return a statement with facts added or replaced."""
    added = {PREFIX + name: value for name, value in facts.items()}
    return {**statement, "predicate": {**statement["predicate"], **added}}


def flattened(record: Json) -> Json:
    """Return what a page shows of a record, by plain keys; a record that is no statement as it is.

    `inputs` and `outputs` have path, bytes and hash of each file; a hash is the file's SHA-256. Files of data, and
    private ones, are left out: a page is no place for them, and may have thousands.
    """
    if kind_of(record) is None:
        return record
    predicate = record["predicate"]
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    external = definition["externalParameters"]
    facts = {name: predicate[PREFIX + name] for name in FACTS if PREFIX + name in predicate}
    return {
        **facts,
        "command": external.get("command"),
        "config": external.get("config") or {},
        "versions": details["builder"]["version"],
        "inputs": [_file(entry) for entry in definition["resolvedDependencies"] if _about(entry).get("role") != DATA],
        "outputs": [_file(entry) for entry in record["subject"] if PRIVATE not in entry["name"].split("/")],
        "started": details["metadata"].get("startedOn"),
        "finished": details["metadata"].get("finishedOn"),
    }


def _about(entry: Json) -> Json:
    return entry.get("annotations") or {}


def _file(entry: Json) -> Json:
    about = _about(entry)
    algorithm, value = next(iter(entry["digest"].items()))
    return {"path": about.get("path") or entry["name"], "bytes": about.get("bytes", 0), "hash": f"{algorithm}:{value}"}
