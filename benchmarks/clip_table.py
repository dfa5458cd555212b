"""Tables of runs that forget one source and keep another, as Markdown.

    python benchmarks/clip_table.py RUN_DIR... [--training clip-small/training.json] [-o docs/results/clip-small.md]

Each run gives a table: forget and control accuracy on the test splits before and after, α, and the consensus with its
denominator, beside the best and the worst member of the pool negated alone. Then the average over the forget sets, of
the methods that all runs have. A run of a linearised model has its own base and pool and is not averaged.
"""

import argparse
import json
from pathlib import Path

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError

COMMANDS = """\
python examples/clip/train_clip.py --cifar10 $DATA/cifar10 --mnist $DATA/mnist -o clip-small
negmerge run configs/clip-small.yaml --set projection=none -o runs/clip-small-mnist \\
  --set data.forget.path=$DATA/mnist --set data.retain.path=$DATA/cifar10
negmerge run configs/clip-small-cifar10.yaml --set projection=none -o runs/clip-small-cifar10 \\
  --set data.forget.path=$DATA/cifar10 --set data.retain.path=$DATA/mnist
negmerge run configs/clip-small-linear.yaml --set projection=none -o runs/clip-small-linear \\
  --set data.forget.path=$DATA/mnist --set data.retain.path=$DATA/cifar10
python benchmarks/clip_table.py runs/clip-small-mnist runs/clip-small-cifar10 runs/clip-small-linear \\
  --training clip-small/training.json -o docs/results/clip-small.md
"""
HEADER = ("method", "forget", "control", "α", "consensus (kept / all merged)", "validation: forget", "control")


def read_run(folder: Path) -> dict:
    """Return the results of a run, with what was measured of each member alone."""
    file = folder / "results.json"
    if not file.is_file():
        raise InputError(f"{folder} has no results.json; run the experiment to its end first")
    results = json.loads(file.read_text())
    singles = sorted((folder / "private" / "shared").glob("*/single-members/*.curve.json"))
    if not singles:
        raise InputError(f"{folder} has no curves of single members; run best-single too, and without --purge-pool")
    curves = {file.name.removesuffix(".curve.json"): json.loads(file.read_text()) for file in singles}
    results["singles"] = {name: best_point(curve) for name, curve in sorted(curves.items())}
    return results


def best_point(curve: dict, share: float = 0.95) -> dict:
    """Return the point of a curve with the smallest forget accuracy above the floor, the smallest α among equals."""
    floor = share * curve["0"]["retain"] - 1e-9
    alphas = sorted((float(a), p) for a, p in curve.items() if p["retain"] >= floor)
    alpha, point = min(alphas, key=lambda pair: (pair[1]["forget"], pair[0]))
    return {"alpha": alpha, "forget": point["forget"], "retain": point["retain"]}


def row_of(label: str, row: dict) -> list[str]:
    """Return the cells of a method."""
    kept = f"{100 * row['consensus']:.2f} % ({row['kept']:,} / {row['merged_elements']:,})"
    chosen = next(p for p in row["curve"] if p["alpha"] == row["alpha"])
    numbers = [f"{row['test_forget']:.2f}", f"{row['test']:.2f}", f"{row['alpha']:.2f}", kept]
    return [label, *numbers, f"{chosen['forget']:.2f}", f"{chosen['retain']:.2f}"]


def run_section(results: dict) -> list[str]:
    """Return the lines of one run."""
    base, model, rows = results["base"], results["model"], results["task"]["rows"]
    text = results["task"]["text"]
    kind = "linearised " if model["settings"].get("linearised") else ""
    zero_shot = [f"{base[key]:.2f}" for key in ("test_forget", "test", "validation_forget", "validation")]
    lines = [
        f"## {text[:1].upper()}{text[1:]}{' (linearised)' if kind else ''}",
        "",
        f"Pool of {len(results['pool']['members'])} {kind}members, consensus "
        f"{100 * results['pool']['consensus']:.2f} % of {model['parameters']:,} trained weights "
        f"(chance {100 * results['pool']['chance']:.2f} %), mean cosine {results['pool']['mean_cosine']:.2f}. "
        f"Test rows: forget {rows['test_forget']:,}, control {rows['test']:,}.",
        "",
        "| " + " | ".join(HEADER) + " |",
        "|---" * len(HEADER) + "|",
        f"| before | {zero_shot[0]} | {zero_shot[1]} | 0 | | {zero_shot[2]} | {zero_shot[3]} |",
    ]
    lines += ["| " + " | ".join(row_of(label, row)) + " |" for label, row in results["methods"].items()]
    if results["singles"]:
        ordered = sorted(results["singles"].items(), key=lambda item: item[1]["forget"])
        for word, (name, point) in (("best", ordered[0]), ("worst", ordered[-1])):
            lines.append(
                f"| {word} single member: {name} | | | {point['alpha']:.2f} | | {point['forget']:.2f} | "
                f"{point['retain']:.2f} |"
            )
    return [*lines, "", verdict(results), ""]


def verdict(results: dict, share: float = 0.95) -> str:
    """Say plainly where the consensus stands on the test split, among the methods that hold the floor there too.

    α was chosen on validation rows, so one percentage point below the floor is let pass.
    """
    floor = share * results["base"]["test"] - 1.0
    held = {name: row for name, row in results["methods"].items() if row["test"] >= floor}
    fallen = [name for name in results["methods"] if name not in held]
    aside = (
        f" More than a point below the floor on the test split, and not counted: {', '.join(fallen)}." if fallen else ""
    )
    name = next((name for name, row in results["methods"].items() if row["method"] == "consensus"), None)
    if name is None or name not in held:
        return aside.strip()
    own = held[name]["test_forget"]
    better = sorted((row["test_forget"], other) for other, row in held.items() if row["test_forget"] < own)
    if not better:
        return f"Consensus forgets most (methods: {len(held)}): {own:.2f} % remain on the forget set.{aside}"
    least, best = better[0]
    return (
        f"Consensus does not win here: it is number {len(better) + 1} of {len(held)} with {own:.2f} % on the forget "
        f"set, {best} has {least:.2f} %.{aside}"
    )


def average_section(runs: list[dict]) -> list[str]:
    """Return the average over the forget sets, of the methods that all runs share."""
    names = [label for label in runs[0]["methods"] if all(label in run["methods"] for run in runs)]
    lines = [f"## Average over {len(runs)} forget sets", "", "| method | forget | control | α | consensus |"]
    lines.append("|---|---|---|---|---|")
    mean = [sum(run["base"][key] for run in runs) / len(runs) for key in ("test_forget", "test")]
    lines.append(f"| before | {mean[0]:.2f} | {mean[1]:.2f} | 0 | |")
    for label in names:
        rows = [run["methods"][label] for run in runs]
        values = [sum(row[key] for row in rows) / len(rows) for key in ("test_forget", "test", "alpha", "consensus")]
        lines.append(f"| {label} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.2f} | {100 * values[3]:.2f} % |")
    return [*lines, ""]


def page(folders: list[Path], training: Path | None) -> str:
    """Return the whole page."""
    runs = [read_run(folder) for folder in folders]
    lines = ["# CLIP: forget a data set, keep the rest", ""]
    lines += [
        "Made by `benchmarks/clip_table.py` from results of one seed; accuracies are zero-shot, in percent.",
        "",
        f"```\n{COMMANDS}```",
        "",
    ]
    if training is not None:
        facts = json.loads(training.read_text())
        accuracies = ", ".join(f"{name} {value:.2f} %" for name, value in facts["zero_shot"].items())
        rows = ", ".join(f"{count:,} of {name}" for name, count in facts["rows"].items())
        lines += [
            f"The model: {facts['parameters']:,} parameters, {facts['image_tower']:,} of them in the image tower, "
            f"{facts['vocabulary']:,} tokens; trained for {facts['settings']['epochs']} epochs on {rows} in "
            f"{facts['seconds'] / 60:.0f} minutes on {facts['threads']} threads. Zero-shot on test: {accuracies}.",
            "",
        ]
    for results in runs:
        lines += run_section(results)
    exact = [run for run in runs if not run["model"]["settings"].get("linearised")]
    if len(exact) > 1:
        lines += average_section(exact)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--training", type=Path, help="the training.json that examples/clip/train_clip.py wrote")
    parser.add_argument("-o", "--output", type=Path, help="the page; printed unless given")
    args = parser.parse_args()
    text = page(args.runs, args.training)
    if args.output is None:
        print(text)
    else:
        write_bytes_atomic(args.output, text.encode())


if __name__ == "__main__":
    main()
