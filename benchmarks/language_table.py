"""What each row of a language run keeps where the forget answers are as improbable as under Retrain, as a table.

    python benchmarks/language_table.py RUN… [--target PERCENT] [--write PAGE]

Reads `results.json` of each run; of one that is not finished what its rows have written (`methods/*/outcome.json`),
with `--target` in the place of Retrain's probability. Merging rows are read off their curve of α, on the rows that
selection sees: at the first α where the mean probability of the forget answers is the target, on the line between the
two α beside it. Trained rows have no α: each value of their search stands for itself. A PAGE that is missing is begun.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from negmerge.report.evidence import evidence_lines
from training import write

Json = dict[str, Any]
SHOWN = ("retain", "retain_extraction", "forget_extraction")
TITLES = ("probability of others", "extraction of others", "share of the base's", "extraction of the forgotten")


def at_target(curve: Sequence[Mapping[str, float]], target: float) -> dict[str, float] | None:
    """Return the scores where forget probability first is `target`, on a line between points; None where it never is.

    >>> at_target([{"alpha": 0, "forget": 90, "retain": 80}, {"alpha": 1, "forget": 10, "retain": 60}], 50)
    {'alpha': 0.5, 'forget': 50.0, 'retain': 70.0}
    """
    points = sorted(curve, key=lambda point: point["alpha"])
    for before, after in pairwise(points):
        if after["forget"] <= target:
            if before["forget"] <= target:
                return dict(before)
            share = (before["forget"] - target) / (before["forget"] - after["forget"])
            return {key: before[key] + share * (after[key] - before[key]) for key in before if key in after}
    return None


def read(run: Path) -> Json:
    """Return the results of a run; of one that is not finished, what there is of its rows, base and Retrain."""
    if (run / "results.json").exists():
        found: Json = json.loads((run / "results.json").read_text())
        return {**found, "finished": True}
    methods = {}
    for file in sorted(run.glob("methods/*/outcome.json"), key=lambda file: file.stat().st_mtime):
        scores = file.with_name("scores.json")
        methods[file.parent.name] = json.loads(file.read_text()) | (
            json.loads(scores.read_text()) if scores.exists() else {}
        )
    parts = {name: run / name / "scores.json" for name in ("base", "reference")}
    known = {name: json.loads(file.read_text()) if file.exists() else {} for name, file in parts.items()}
    return {"name": run.name, "task": {"text": ""}, **known, "methods": methods, "finished": False}


def base_of(results: Json) -> Json:
    """Return the base's scores on the rows that selection sees: α = 0 of a curve; where none has it, of all rows."""
    curves = (row.get("curve") or [] for row in results["methods"].values())
    found: Json = next((dict(point) for curve in curves for point in curve if point["alpha"] == 0), results["base"])
    return found


def lines_of(results: Json, target: float) -> list[list[str]]:
    """Return a line for each row: name, α or what was searched, forget probability, and the scores there."""
    found, whole = [], base_of(results).get("retain_extraction")
    for name, row in results["methods"].items():
        if row.get("curve"):
            at = at_target(row["curve"], target)
            least = min(point["forget"] for point in row["curve"])
            found.append(
                [name, f"not reached (least {least:.1f})", *[""] * 5] if at is None
                else [name, f"α = {at['alpha']:.2f}", *_cells(at, whole)]
            )  # fmt: skip
            continue
        for one in (row.get("search") or {}).get("candidates") or [{"settings": {}, "scores": row}]:
            said = ", ".join(f"{key} {value:g}" for key, value in one["settings"].items()) or "–"
            found.append(
                [name, said, *_cells(one["scores"], whole)] if one["scores"] else [name, said, "failed", *[""] * 4]
            )
    return found


def _cells(scores: Mapping[str, float], whole: float | None) -> list[str]:
    kept, retain, forgotten = scores.get("retain_extraction"), scores.get("retain"), scores.get("forget_extraction")
    share = f"{kept / whole:.2f}" if kept is not None and whole else ""
    values = ["" if one is None else f"{one:.1f}" for one in (scores.get("forget"), retain, kept)]
    return [*values, share, "" if forgotten is None else f"{forgotten:.1f}"]


def table(results: Json, target: float | None) -> str:
    """Return one run as Markdown."""
    reference = results.get("reference") or {}
    aim = reference.get("forget", target)
    state = "" if results["finished"] else " (not finished)"
    lines = [f"### {results['name']}{state}", "", results["task"]["text"], ""]
    if aim is None:
        return "\n".join([*lines, "Retrain's probability is not known yet: give --target.", ""])
    base = base_of(results)
    whole = base.get("retain_extraction")
    head = ["row", "where", "probability of the forgotten", *TITLES]
    rows = [["base", "α = 0", *_cells(base, whole)], *lines_of(results, aim)]
    other = results["base"].get("retain_extraction")  # Retrain is not on a curve: both on the rows of the result table
    rows += [["Retrain", "scored rows", *_cells(reference, other)]] if reference else []
    lines += ["| " + " | ".join(one) + " |" for one in (head, ["---"] * len(head), *rows)]
    lines += [
        "",
        f"At a forget probability of {aim:.1f} %; all in percent but the share.",
        *consensus(results, aim),
        "",
    ]
    lines += scored(results, head[2:])
    if results.get("verdict"):
        lines += ["```", *evidence_lines(results), "```", ""]
    return "\n".join(lines)


def scored(results: Json, head: Sequence[str]) -> list[str]:
    """Return the models that were written, on the rows of the result table; nothing of a run that is not finished."""
    if not results["finished"]:
        return []
    whole = results["base"].get("retain_extraction")
    models = {"base": results["base"], **results["methods"], "Retrain": results.get("reference")}
    rows = [[name, *_cells(scores, whole)] for name, scores in models.items() if scores]
    count = (results["task"].get("evaluated") or {}).get("retain")
    table = ["| " + " | ".join(one) + " |" for one in (["model", *head], ["---"] * (len(head) + 1), *rows)]
    return [f"The models that were written, on {f'{count} of' if count else ''} the others:", "", *table, ""]


def consensus(results: Json, aim: float) -> list[str]:
    """Return what consensus adds to the mean at the target, plain and projected, as far as both rows are there."""
    said = []
    for kind in ("", " projected"):
        rows = [results["methods"].get(f"{name}{kind}") or {} for name in ("consensus", "uniform")]
        own, mean = (at_target(row.get("curve") or [], aim) for row in rows)
        if own and mean:
            more = own["retain_extraction"] - mean["retain_extraction"]
            said.append(f"Consensus{kind} keeps {more:+.1f} points of the others' extraction against the mean{kind}.")
    return said


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--target", type=float, help="percent, where a run has no Retrain yet")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args(words)
    text = "\n".join(table(read(run), options.target) for run in options.runs)
    print(text)
    if options.write:
        write(options.write, text)


if __name__ == "__main__":
    main()
