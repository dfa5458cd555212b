"""Forgetting a class: every merge with and without the retain projection, beside methods that train.

    python benchmarks/class_forgetting.py CONFIG FOLDER --classes cat … [--set KEY=VALUE]… [--write PAGE] [--json FILE]

Runs a config once for each class, in FOLDER/CLASS. Each merging row's vector is then negated in steps of α 30 % apart
(see projection.py), so that all are read at equal forgetting: at the first step where at most 5 % (1 %) of the class is
recognised, on its forget or its unseen rows, whichever is more. The same command goes on where it was stopped;
`--write` makes the table of what is done. Minutes are CPU time of all processes, so that a busy machine does not matter
(of one thread: `--set threads=1 --set workers=1`), with wall-clock time in brackets.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cpu_minutes import CpuMinutes

from negmerge.execution import torch_threads
from negmerge.experiment.config import Config, MethodConfig, load_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir, read_json, seed_place
from negmerge.experiment.stages import SeedRun
from projection import Yardstick
from training import write

LEVELS = (5.0, 1.0)
RETRAIN = "Retrain"


def vector_of(place: RunDir, contexts: Any, method: MethodConfig, outcome: Mapping[str, Any]) -> Path:
    """Return the file of the merged vector that a row negates."""
    name = outcome["member"] or "merged"
    folder = contexts.shared(method) / "single-members" if outcome["member"] else place.private / "methods" / method.row
    strength = outcome.get("projection", {}).get("strength")
    return folder / (f"{name}.safetensors" if strength is None else f"{name}.strength-{strength:g}.safetensors")


def measure(config: Config, folder: Path, evaluated: int) -> dict[str, Any]:
    """Run a config, and return for each row its results, and what it costs at equal forgetting."""
    cpu = CpuMinutes(folder / "cpu.json")
    results = run(config, folder, on_event=cpu)
    base = results["base"]
    found: dict[str, Any] = {"base": {"known": known_of(base), "test": base["test"]}, "rows": {}}
    if results["reference"]:
        found["rows"][RETRAIN] = retrain_row(results["reference"], base, cpu.of_stages("base"))
    with RunDir(folder).lock(), torch_threads(config.threads or 1):
        place = seed_place(RunDir(folder), config, config.seeds[0])
        seed = SeedRun(place, config, prepare(RunDir(folder), config), config.seeds[0])
        yardstick = Yardstick(seed.material, seed.seed, evaluated)
        for method in config.methods:
            row = results["methods"][method.row]
            chosen = chosen_of(row, base)
            at = at_levels(chosen)
            if row.get("alpha") is not None:
                vector = vector_of(place, seed.contexts, method, row)
                negated = seed.selector.negated(seed.base, vector, config.buffers_of(method))
                points = yardstick.curve(negated, place.private / "curves" / f"{method.row}.json")
                at = {level: lost_at(yardstick, points, float(level)) for level in at}
            found["rows"][method.row] = {
                "needs": row["needs"],
                "seconds": row["seconds"],
                "cpu_seconds": cpu.of_row(method.row, row["needs"], projected=method.projected is not None),
                "alpha": row.get("alpha"),
                "strength": row.get("projection", {}).get("strength"),
                "chosen": chosen,
                "at": at,
                "per_class": row["per_class"],
            }
    return found


def retrain_row(reference: Mapping[str, Any], base: Mapping[str, float], cpu_seconds: float | None) -> dict[str, Any]:
    """Return the row of the model that never saw the class: of one that was given, nobody knows the time."""
    chosen, trained = chosen_of(reference, base), reference["seconds"] is not None
    return {
        "needs": ["retain"],
        "seconds": reference["seconds"],
        "cpu_seconds": cpu_seconds if trained else None,
        "alpha": None,
        "strength": None,
        "chosen": chosen,
        "at": at_levels(chosen),
        "per_class": reference["per_class"],
    }


def chosen_of(row: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Return what a row knows of the class, and what it has of the others."""
    return {"known": known_of(row), "test": row["test"], "lost": row["test"] - base["test"]}


def at_levels(chosen: dict[str, float]) -> dict[str, Any]:
    """Return at each level what a row that has no α ended with, where it got there."""
    return {f"{level:g}": chosen if chosen["known"] <= level else None for level in LEVELS}


def minutes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return CPU minutes where they are known, with those of the clock in brackets."""
    clock = [row["seconds"] / 60 for row in rows if row["seconds"] is not None]
    cpu = [row["cpu_seconds"] / 60 for row in rows if row.get("cpu_seconds") is not None]
    if not clock:
        return "–"
    return f"{statistics.mean(cpu):.1f} ({statistics.mean(clock):.1f})" if cpu else f"– ({statistics.mean(clock):.1f})"


def known_of(row: Mapping[str, float]) -> float:
    """Return how much of the class a model recognises, of its forget or of its test images, whichever is more."""
    return max(row["forget"], row["test_forget"])


def lost_at(yardstick: Yardstick, points: list[dict[str, float]], level: float) -> dict[str, float] | None:
    """Return the first point of a curve where at most `level` percent are known, with what the others have lost."""
    point = yardstick.at(points, level)
    if point is None:
        return None
    return {**point, "known": yardstick.known(point), "lost": point["test"] - points[0]["test"]}


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
    header = ["row", "rows it needs", "known of the class", "others", "at ≤ 5 %", "at ≤ 1 %", "λ", "CPU minutes"]
    table = ["| " + " | ".join(header) + " |", "| --- | --- |" + " ---: |" * (len(header) - 2)]
    for row in dict.fromkeys(row for one in found.values() for row in one["rows"]):
        of = [one["rows"][row] for one in found.values() if row in one["rows"]]
        strengths = sorted({one["strength"] for one in of if one["strength"]})
        cells = [
            row if len(of) == len(found) else f"{row} ({len(of)} of {len(found)})",
            ", ".join(of[0]["needs"]) or "–",
            number([one["chosen"]["known"] for one in of]),
            number([one["chosen"]["lost"] for one in of], "+.1f"),
            *(
                number([one["at"][f"{level:g}"] and one["at"][f"{level:g}"]["lost"] for one in of], "+.1f")
                for level in LEVELS
            ),
            ", ".join(f"{strength:g}" for strength in strengths) or "–",
            minutes(of),
        ]
        table.append("| " + " | ".join(cells) + " |")
    known, others = ([one["base"][key] for one in found.values()] for key in ("known", "test"))
    table.append(f"| original | – | {number(known)} | {number(others)} in all | – | – | – | – |")
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
