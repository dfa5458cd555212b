"""What decides the gap of NegMerge to Retrain: one recipe beside the next, each changed in one thing.

    python benchmarks/what_decides.py FOLDER --set data.source=parquet … [--only NAME…] [--write PAGE]

Every recipe is a run of configs/cifar10-resnet20-table.yaml on one seed, in FOLDER/NAME; the same command goes on
where it was stopped. `--set` is as in `negmerge run`: where images, base and Retrain model are.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.experiment.config import load_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.renewing import check_identity
from negmerge.experiment.rundir import RunDir
from training import write

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "cifar10-resnet20-table.yaml"
FORGET, RETAIN = {"recalibrate": "forget", "rows": 1000}, {"recalibrate": "retain", "rows": 2000}
PLAIN = ["consensus", "uniform", "random-mask"]
RECALIBRATED = [
    {"name": name, "label": f"{name}, recalibrated", "buffers": FORGET} for name in ("consensus", "uniform")
]
METHODS = [*PLAIN[:2], *RECALIBRATED]
MORE = [
    *PLAIN,
    *RECALIBRATED,
    {"name": "random-mask", "label": "random-mask, recalibrated", "buffers": FORGET},
    {"name": "consensus", "label": "consensus, recalibrated on retain rows", "buffers": RETAIN},
    {"name": "consensus", "label": "consensus of 75 %", "threshold": 0.75},
    "original",
]
LONG, SMOOTHING = [40, 60], [0.0, 0.1]
DECAYS = {"label_smoothing": [0.0], "weight_decay": [5e-5, 5e-4]}
BEST: dict[str, Any] = {"train": {"lr": 0.1}, "grid": DECAYS}

# recipe → training settings that all members share, the grid, and what else differs from the first
RECIPES: dict[str, dict[str, Any]] = {
    "center": {"methods": MORE},
    "no-smoothing": {"grid": DECAYS, "methods": MORE[:6]},
    "no-smoothing-lr-0.1": {**BEST, "methods": MORE[:6]},
    "smoothing": {"grid": {"label_smoothing": [0.2, 0.4]}},
    "short": {"grid": {"epochs": [5, 10]}},
    "lr-0.1": {"train": {"lr": 0.1}},
    "lr-0.01": {"train": {"lr": 0.01}},
    "augmented": {"train": {"augment": "crop+flip"}},
    "lr-0.01-frozen": {"train": {"lr": 0.01, "freeze_statistics": True}, "methods": PLAIN[:2]},
    "retain-floor": {**BEST, "selection": {"objective": "retain-floor"}, "pool_of": "no-smoothing-lr-0.1"},
    "match-holdout": {**BEST, "selection": {"objective": "match-holdout"}, "pool_of": "no-smoothing-lr-0.1"},
}


def changes(recipe: dict[str, Any]) -> list[str]:
    """Return a recipe as changes to the config."""
    shared = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05, "weight_decay": 5e-5, "batch_size": 256}
    grid = {"epochs": LONG, "label_smoothing": SMOOTHING} | recipe.get("grid", {})
    train = {key: value for key, value in (shared | recipe.get("train", {})).items() if key not in grid}
    made = {
        "pool": {"train": train, "grid": grid},
        "methods": recipe.get("methods", METHODS),
        "buffers": "keep",
        "evaluation": {"membership": ["svc-confidence"], "most": 2000},
        "seeds": [0],
    }
    if "selection" in recipe:
        made["selection"] = recipe["selection"]
    return [f"{key}={json.dumps(value)}" for key, value in made.items()]


def run_recipe(name: str, folder: Path, words: list[str]) -> dict[str, Any]:
    """Run a recipe, or read back what it gave; members of the same pool are taken from the recipe that has them."""
    recipe, place = RECIPES[name], RunDir(folder / name)
    config = load_config(CONFIG, [f"name={name}", *words, *changes(recipe)])
    members = place.path / "private" / "pool"
    if "pool_of" in recipe and not members.exists():
        run_recipe(recipe["pool_of"], folder, words)
        with place.lock():
            check_identity(place, config)
            partial = place.private / "pool.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(RunDir(folder / recipe["pool_of"]).private / "pool", partial)
            partial.rename(members)
    results = run(config, place.path)
    found: dict[str, Any] = {"name": name, **{key: results[key] for key in ("pool", "methods", "base")}}
    return found


def lines_of(found: dict[str, Any]) -> list[str]:
    """Return the rows of a recipe."""
    pool, lines = found["pool"], []
    told = [found["name"], f"{100 * pool['consensus']:.1f}", f"{pool['mean_cosine']:.2f}"]
    for row, values in found["methods"].items():
        numbers = [f"{values[key]:.1f}" for key in ("retain", "forget", "test", "membership", "gap")]
        oracle = values.get("oracle")
        first = next((point.get("gap") for point in values.get("curve") or () if point["alpha"] == 1.0), None)
        alpha = "–" if values.get("alpha") is None else f"{values['alpha']:.2f}"
        aside = f"{oracle['gap_chosen'] - oracle['gap']:.1f} (α {oracle['alpha']:.2f})" if oracle else "–"
        limited = "–" if first is None else f"{first:.1f}"
        lines.append("| " + " | ".join([*told, row, *numbers, alpha, limited, aside]) + " |")
        told = ["", "", ""]
    return lines


HEADER = (
    "recipe",
    "kept %",
    "cosine",
    "method",
    "retain",
    "forget",
    "test",
    "membership",
    "gap",
    "α",
    "gap at α = 1",
    "lost to the oracle's choice",
)


def table(recipes: list[dict[str, Any]]) -> str:
    """Return all recipes as one Markdown table."""
    rule = ["---"] * 4
    lines = ["| " + " | ".join(HEADER) + " |", "| " + " | ".join([*rule, *["---:"] * (len(HEADER) - 4)]) + " |"]
    return "\n".join([*lines, *(line for found in recipes for line in lines_of(found)), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="words", metavar="KEY=VALUE")
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=list(RECIPES), metavar="NAME")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between the marks of this page")
    options = parser.parse_args()
    recipes = []
    for name in options.only:
        try:
            recipes.append(run_recipe(name, options.folder, options.words))
        except InputError as error:
            raise SystemExit(str(error)) from None
        print("\n".join(lines_of(recipes[-1])), flush=True)
    if options.write:
        write(options.write, table(recipes))


if __name__ == "__main__":
    main()
