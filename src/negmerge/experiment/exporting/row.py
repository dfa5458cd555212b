"""What is exported: the row of a finished run, its weights as recorded, and what it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.errors import InputError, nearest, shortened
from negmerge.experiment.dependencies import WEIGHTS, ancestors
from negmerge.experiment.rundir import read_json
from negmerge.record.digests import digests_of
from negmerge.record.statement import Json, fact, kind_of, read_statement
from negmerge.selection import chosen_point, rank_models

RESULTS = "results.json"


@dataclass(frozen=True)
class Row:
    """A row of a run: its name, the folder of its seed, the run's record, results and config as plain values."""

    run: Path
    name: str
    seed: int
    statement: Json
    results: Json

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run, resolved."""
        config: Mapping[str, Any] = self.statement["predicate"]["buildDefinition"]["externalParameters"]["config"]
        return config

    @property
    def prefix(self) -> str:
        """Where the files of the seed lie below the run: '' or 'seed-N/'."""
        return f"seed-{self.seed}/" if len(self.config["seeds"]) > 1 else ""

    @property
    def key(self) -> str:
        """The name of the weights in the record."""
        return f"{self.prefix}methods/{self.name}/{WEIGHTS}"

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.run / self.key

    @property
    def base(self) -> Path:
        """The file of the base, which may have been removed."""
        return self.run / f"{self.prefix}base/{WEIGHTS}"

    @property
    def entries(self) -> dict[str, Json]:
        """The files and inputs of the run by name, those that were removed among them."""
        listed = [
            *self.statement["predicate"]["buildDefinition"]["resolvedDependencies"],
            *(fact(self.statement, "gone") or ()),
            *self.statement["subject"],
        ]
        return {entry["name"]: entry for entry in listed}

    def made_from(self) -> list[str]:
        """Return the names of all files and inputs that the weights were made of, directly or not."""
        sources = {name: (entry.get("annotations") or {}).get("made_from", ()) for name, entry in self.entries.items()}
        return ancestors(sources, self.key)

    def judged(self) -> bool:
        """Whether the verdict of the results is on this row."""
        evidence = self.results.get("evidence") or {}
        return evidence.get("method") == self.name and evidence.get("seed") == self.seed


def find_row(run: Path, method: str | None, seed: int | None = None) -> Row:
    """Return the row of a run that is to be exported: the one that is named, or that the evidence judged, or the first.

    Raises InputError for a directory that is no finished run, for a name or a seed that it does not have, and where
    weights or results are gone or not what the record says.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such directory; give that of a finished run")
    statement = read_statement(run)
    if kind_of(statement) != "run":
        raise InputError(f"{run} is an exported model; give the directory of the run that it came from")
    results = _results(run, statement)
    config = statement["predicate"]["buildDefinition"]["externalParameters"]["config"]
    seeds = config["seeds"]
    if seed is not None and seed not in seeds:
        raise InputError(f"{run} has no seed {seed}; it has {', '.join(map(str, seeds))}")
    chosen = seeds[0] if seed is None else seed
    names = list(results["methods"])
    if not names:
        raise InputError(f"{run} has no row that could be exported: no method was run")
    if method is not None and method not in names:
        raise InputError(f"{run} has no row {method!r}{nearest(method, names)}; it has {shortened(names)}")
    name = method or _shipped(results, config, names)
    row = Row(run, name, chosen, statement, results)
    known = row.entries.get(row.key)
    if known is None:
        raise InputError(f"the row {name} was not made on seed {chosen}; give --method or --seed")
    if not row.weights.is_file():
        raise InputError(f"{row.weights} is gone; run `negmerge run` with the same config again")
    if digests_of(row.weights).sha256 != known["digest"]["sha256"]:
        raise InputError(f"{row.weights} is not what the record says; `negmerge verify {run}` names what changed")
    return row


def _results(run: Path, statement: Json) -> Json:
    """Return the results of a run, whose numbers card and page repeat: they must be the recorded ones."""
    file = run / RESULTS
    recorded = [entry["digest"].get("sha256") for entry in statement["subject"] if entry["name"] == RESULTS]
    if not file.is_file():
        raise InputError(f"{file} is gone; run `negmerge run` with the same config again")
    if recorded != [digests_of(file).sha256]:
        raise InputError(f"{file} is not what the record says; `negmerge verify {run}` names what changed")
    return dict(read_json(file))


def _shipped(results: Json, config: Mapping[str, Any], names: list[str]) -> str:
    """Return the row that the evidence judged; else the one that answers the request."""
    judged = _judged(results)
    found = judged if judged in names else shipped_row(config, results)
    return found if found in names else names[0]


def shipped_row(config: Mapping[str, Any], results: Json) -> str:
    """Return the row whose model answers the request: the first method of a resolved config, or its projected row.

    The better of the two by the run's objective, at the α chosen for each; the projected one where they are equal.
    Where the evidence judged one of them, that one: a verdict belongs to the model that is handed over.
    """
    first, *more = config["methods"]
    beside = [m for m in more if m["name"] == first["name"] and isinstance(m.get("projection"), Mapping)]
    names = [m["label"] or Path(m["name"]).stem for m in (*beside[:1], first)]
    if _judged(results) in names:
        return _judged(results)
    curves = [results["methods"].get(name, {}).get("curve") for name in names]
    if len(names) == 1 or not all(curves):  # of several seeds there is no one curve
        return names[0]
    rule = results["selection"]

    def rank(name: str) -> tuple[float, ...]:
        return rank_models(
            chosen_point(results["methods"][name]), rule["objective"], floors={}, gone=rule.get("gone", 0.0)
        )

    return min(names, key=rank)


def _judged(results: Json) -> str:
    return str((results.get("evidence") or {}).get("method", ""))
