"""Forgetting a class: every merge with and without the retain projection, beside methods that train.

    python benchmarks/class_forgetting.py CONFIG FOLDER --classes cat … [--set KEY=VALUE]… [--write PAGE] [--json FILE]

Runs a config once for each class, in FOLDER/CLASS. Each merging row's vector is then negated in steps of α 30 % apart
(see projection.py), so that all are read at equal forgetting: at the first step where at most 5 % (1 %) of the class is
recognised, on its forget or its unseen rows, whichever is more. The same command goes on where it was stopped;
`--write` makes the table of what is done.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.execution import torch_threads
from negmerge.experiment.config import Config, MethodConfig, load_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir, read_json, seed_place
from negmerge.experiment.stages import SeedRun
from projection import Yardstick
from training import write

LEVELS = (5.0, 1.0)


def vector_of(place: RunDir, contexts: Any, method: MethodConfig, outcome: Mapping[str, Any]) -> Path:
    """Return the file of the merged vector that a row negates."""
    name = outcome["member"] or "merged"
    folder = contexts.shared(method) / "single-members" if outcome["member"] else place.private / "methods" / method.row
    strength = outcome.get("projection", {}).get("strength")
    return folder / (f"{name}.safetensors" if strength is None else f"{name}.strength-{strength:g}.safetensors")


def measure(config: Config, folder: Path, evaluated: int) -> dict[str, Any]:
    """Run a config, and return for each row its results, and what it costs at equal forgetting."""
    results = run(config, folder)
    with RunDir(folder).lock(), torch_threads(1):
        place = seed_place(RunDir(folder), config, config.seeds[0])
        seed = SeedRun(place, config, prepare(RunDir(folder), config), config.seeds[0])
        yardstick = Yardstick(seed.material, seed.seed, evaluated)
        task, device = seed.material.task, seed.material.device
        found = {"base": yardstick.scores(task.open(seed.base, device)), "rows": {}}
        for method in config.methods:
            row = results["methods"][method.row]
            checkpoint = place.path / "methods" / method.row / "model.safetensors"
            points = [yardstick.scores(task.open(checkpoint, device))]
            found["rows"][method.row] = told = {
                "needs": row["needs"],
                "seconds": row["seconds"],
                "alpha": row.get("alpha"),
                "strength": row.get("projection", {}).get("strength"),
                "chosen": {**points[0], "known": yardstick.known(points[0])},
                "per_class": row["per_class"],
            }
            if row.get("alpha") is not None:
                vector = vector_of(place, seed.contexts, method, row)
                negated = seed.selector.negated(seed.base, vector, config.buffers_of(method))
                points = yardstick.curve(negated, place.private / "curves" / f"{method.row}.json")
            told["at"] = {f"{level:g}": yardstick.at(points, level) for level in LEVELS}
    return found


def number(values: Sequence[float | None], form: str = ".1f") -> str:
    """Return the mean and the range of what is there, and how many are not.

    >>> number([1.0, 3.0])
    '2.0 (1.0 – 3.0)'
    """
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    missing = "" if len(there) == len(values) else f", {len(values) - len(there)} of {len(values)} never"
    spread = f" ({min(there):{form}} – {max(there):{form}}{missing})" if len(values) > 1 else ""
    return f"{statistics.mean(there):{form}}{spread}"


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table: for each row mean and range over the classes of what is lost on other classes."""
    classes = list(found)
    known = "known of the class, as chosen"
    header = ["row", "rows it needs", known, "others lost, as chosen", "at ≤ 5 %", "at ≤ 1 %", "λ", "minutes"]
    table = ["| " + " | ".join(header) + " |", "| --- | --- |" + " ---: |" * (len(header) - 2)]

    def lost(name: str, point: Mapping[str, float] | None) -> float | None:
        return None if point is None else point["test"] - found[name]["base"]["test"]

    for row in dict.fromkeys(row for name in classes for row in found[name]["rows"]):
        of = {name: found[name]["rows"][row] for name in classes if row in found[name]["rows"]}
        strengths = ", ".join(f"{one['strength']:g}" if one["strength"] else "–" for one in of.values())
        cells = [
            row,
            ", ".join(next(iter(of.values()))["needs"]) or "–",
            number([one["chosen"]["known"] for one in of.values()]),
            number([lost(name, one["chosen"]) for name, one in of.items()], "+.1f"),
            *(number([lost(name, one["at"][f"{level:g}"]) for name, one in of.items()], "+.1f") for level in LEVELS),
            strengths if any(one["strength"] for one in of.values()) else "–",
            number([one["seconds"] / 60 for one in of.values()]),
        ]
        table.append("| " + " | ".join(cells) + " |")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--evaluated", type=int, default=1000, help="rows of each part that are looked at")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in options.classes:
        folder = options.folder / name
        change = f"data.forget={json.dumps({'classes': [name]})}"
        done = folder / "measured.json"
        if not done.exists():
            measured = measure(load_config(options.config, [*options.changes, change]), folder, options.evaluated)
            done.write_text(json.dumps(measured))
        found[name] = read_json(done)
        print("\n".join(lines({name: found[name]})), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.write:
        write(options.write, "\n".join(lines(found)) + "\n")


if __name__ == "__main__":
    main()
