"""How strong a projection must be where there are few rows: what is left of a class at each strength λ.

    python benchmarks/projection_strengths.py CONFIG FOLDER --classes 0 3 8 [--samples 100 600] [--set KEY=VALUE]…
        [--write PAGE]

Runs a config with the one method `uniform` once for each class and number of sampled rows, in FOLDER/CLASS-SAMPLES.
Each strength has the α that the run's objective chooses for it, and the numbers are those on which it was chosen; the
last column is the row that `negmerge.unlearn` would hand over, the plain or the projected one, on the reported rows.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negmerge.experiment.config import Config, load_config
from negmerge.experiment.exporting.row import shipped_row
from negmerge.experiment.pipeline import run
from training import write

STRENGTHS = [0.1, 1.0, 3.0, 10.0, 30.0, 100.0]
PLAIN, PROJECTED = "uniform", "uniform projected"


def known(scores: Mapping[str, float]) -> str:
    """Return what is left of the class, on its forget or its unseen rows, whichever is more, and what others have."""
    unseen = scores.get("test_forget", scores.get("validation_forget", 0.0))
    return f"{max(scores['forget'], unseen):.0f} / {scores['retain']:.1f}"


def line(name: str, samples: int, config: Config, results: Mapping[str, Any]) -> str:
    """Return the line of a class and a number of samples."""
    plain, projected = results["methods"][PLAIN], results["methods"][PROJECTED]
    chosen = next(point for point in plain["curve"] if point["alpha"] == plain["alpha"])
    cells = [name, str(samples), known(chosen), *(known(one) for one in projected["projection"]["strengths"])]
    row = shipped_row(config.resolved(), results)
    shipped = results["methods"][row]
    told = f"λ = {shipped['projection']['strength']:g}" if row == PROJECTED else "plain"
    left = max(shipped["forget"], shipped["test_forget"])
    return "| " + " | ".join([*cells, f"{told}: {left:.0f} / {shipped['test']:.1f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--samples", nargs="+", type=int, default=[100, 600])
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this page")
    options = parser.parse_args()
    header = [
        "class",
        "samples",
        "plain",
        *(f"λ = {strength:g}" for strength in STRENGTHS),
        "handed over, on test rows",
    ]
    table = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for name in options.classes:
        for samples in options.samples:
            made = {
                "data.forget": {"classes": [name]},
                "methods": ["uniform"],
                "projection": {"samples": samples, "strength": STRENGTHS},
            }
            changes = [*options.changes, *(f"{key}={json.dumps(value)}" for key, value in made.items())]
            config = load_config(options.config, changes)
            table.append(line(name, samples, config, run(config, options.folder / f"{name}-{samples}")))
            print(table[-1], flush=True)
    if options.write:
        write(options.write, "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
