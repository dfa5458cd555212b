"""What of a run's record, config and results may be shown to anybody: no paths, no content, and no ids if so asked."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from negmerge.experiment.dependencies import WEIGHTS
from negmerge.experiment.exporting.row import Row
from negmerge.record.digests import digests_of
from negmerge.record.statement import Json, descriptor, fact, make_statement
from negmerge.report.document import FOLDERS

HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
FILES = re.compile(r"\.(csv|tsv|txt|json|jsonl|parquet|ya?ml|py|pt|pth|bin|ckpt|safetensors|npy|npz|png|jpe?g)$")
ABOUT_ROWS = ("data", "request", "name", "inputs")  # parts of a config that may say which rows were to be forgotten
WEIGHT_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
OWN = "the row's weights in the run"
REVERSIBILITY = "reversibility"  # the test that names files of the run
SHOWN, SAID = "shown", "said"  # in results: rows themselves, before and after; what models say to them
REQUEST = "request"  # who asked, and why: that is nobody else's affair


def public_config(config: Mapping[str, Any], *, ids: bool) -> Json:
    """Return a config without folders; without ids also without all that says which rows were to be forgotten."""
    kept = {key: value for key, value in config.items() if key != REQUEST and (ids or key not in ABOUT_ROWS)}
    shown: Json = without_folders(kept)
    return shown


def without_folders(value: Any) -> Any:
    """Return plain values in which every path is its last part alone; ids of the hub stay.

    >>> without_folders({"path": "/home/ann/forget.csv", "model": "owner/name", "rate": 0.1})
    {'path': 'forget.csv', 'model': 'owner/name', 'rate': 0.1}
    """
    if isinstance(value, Mapping):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    if not isinstance(value, str) or "/" not in value:
        return value
    place = value.startswith(("/", "~", "./", "../")) or FILES.search(value) or Path(value).exists()
    if " " in value and not place:
        return FOLDERS.sub("…/", value)
    if HUB.fullmatch(value) and not FILES.search(value) and not Path(value).exists():
        return value
    return PurePosixPath(value).name


def public_forget(row: Row, *, ids: bool) -> Json:
    """Return what is said of the forgotten rows: each by id and hash, or only how many there are."""
    forget: Json = fact(row.statement, "forget") or {}
    if ids:
        return {key: value for key, value in forget.items() if key != "listed_in"}
    return {key: forget[key] for key in ("kind", "rows") if key in forget}


def public_statement(row: Row, folder: Path, files: list[str], *, ids: bool, clean: Json | None = None) -> Json:
    """Return the record of an exported model: a statement on the files of its folder.

    It says of what they were made, by hashes alone, and holds no path, and nothing of a row but id and hash, nor these
    without `ids`. `clean` describes the model that an adapter is on. Equal exports of one run have equal records: the
    dates are those of the run.
    """
    predicate = row.statement["predicate"]
    details, definition = predicate["runDetails"], predicate["buildDefinition"]
    made = [_source(row, name, ids=ids) for name in row.made_from()]
    sources = [entry for entry in made if entry is not None]
    subject = []
    for name in files:
        found = digests_of(folder / name)
        about = {"bytes": found.bytes, "tree": found.tree, "made_from": [OWN] if is_weights(name) else []}
        subject.append(descriptor(name, {"sha256": found.sha256}, **about))
    own = descriptor(OWN, row.entries[row.key]["digest"], role="row")
    keys = ("machine", "stages", "seconds", "peak_rss")
    facts = {key: fact(row.statement, key) for key in keys if fact(row.statement, key) is not None}
    return make_statement(
        "export",
        subject,
        external={
            "method": row.name,
            "seed": row.seed,
            "ids": ids,
            **({} if clean is None else {"rank": clean["annotations"]["rank"]}),
            "config": public_config(row.config, ids=ids),
        },
        internal=definition["internalParameters"],
        dependencies=[own, *([] if clean is None else [clean]), *sources],
        versions=details["builder"]["version"],
        code=details["builder"]["builderDependencies"],
        metadata=details["metadata"],
        facts={**facts, "forget": public_forget(row, ids=ids), "of": {"run": details["metadata"]["invocationId"]}},
    )


def public_results(results: Json, *, ids: bool) -> Json:
    """Return results without the rows that a page would show, and without the files of the run that evidence names.

    Without ids what tests say in words is left out too: it may name classes.
    """
    kept = {key: value for key, value in results.items() if key not in (SHOWN, SAID, REQUEST)}
    evidence = kept.get("evidence")
    if evidence:
        kept["evidence"] = {**evidence, "tests": [_public_test(test, ids=ids) for test in evidence["tests"]]}
    return kept


def _public_test(test: Json, *, ids: bool) -> Json:
    if test["name"] == REVERSIBILITY:
        restoring = len(test["facts"].get("files") or [])
        text = f"Nothing that is shipped gives the base back; in the directory of the run {restoring} files did."
        return {**test, "text": text, "facts": {}}
    return test if ids else {**test, "text": "", "facts": {}}


def is_weights(name: str) -> bool:
    """Whether a file of an exported folder holds weights, or a part of them."""
    return PurePosixPath(name).name.startswith(("model", "pytorch_model", "adapter_model")) and name.endswith(
        WEIGHT_ENDINGS
    )


def _source(row: Row, name: str, *, ids: bool) -> Json | None:
    """Return the descriptor of what a model was made of, a file of the run or an input, without its folder.

    None, without ids, for one that says which rows were to be forgotten.
    """
    entry = row.entries[name]
    about = entry.get("annotations") or {}
    place = name.removeprefix(row.prefix)
    role = about.get("role") or _role(place)
    if not ids and (role.startswith("data") or role == "rows"):
        return None
    # The place of a file of the run says what it is; an input is named by whoever gave it.
    shown = without_folders(place) if "role" in about else place.removeprefix("private/").removesuffix(f"/{WEIGHTS}")
    return descriptor(shown, entry["digest"], role=role, bytes=about.get("bytes"))


def _role(name: str) -> str:
    parts = name.split("/")
    if parts[0] == "private":
        return {"pool": "member", "methods": "vector", "shared": "vector", "data": "rows"}.get(parts[1], "file")
    return {"base": "base", "reference": "reference", "methods": "row"}.get(parts[0], "rows")
