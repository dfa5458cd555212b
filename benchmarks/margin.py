"""What the margin of retain-floor costs and brings: each of the ten digits forgotten once, at several margins.

`python benchmarks/margin.py -o FOLDER` prints the table of docs/results/margin.md. The run of the demo, for one digit
after the other; then the consensus vector at the smallest α at which neither the request's own rows nor held-out ones
are recognised (× 1), and × 1.25, 1.5, 2 and 3, whatever floor and retain loss say there. `AUC`: of the forgotten
class's margin (its logit minus logsumexp of the others), its unseen rows against all other unseen rows; Retrain's is
the aim.
"""

import argparse
import json
import statistics
from importlib.resources import files
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from negmerge.experiment.config import Config, check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.parsing import parse_yaml
from negmerge.selection.negated_model import NegatedModel

MARGINS = (1.0, 1.25, 1.5, 2.0, 3.0)
SLACK = 0.05, 0.1  # nat, share


def demo(digit: int) -> Config:
    """Return the demo's config for another digit, with the consensus row alone."""
    raw = parse_yaml((files("negmerge.cli") / "demo.yaml").read_text())
    raw["data"]["forget"]["classes"] = [str(digit)]
    return check_config({**raw, "name": f"digit-{digit}", "methods": ["consensus"]})


@torch.inference_mode()
def answers(task, model, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits [n, 10] and labels [n]."""
    images, labels = task.batch(rows, "cpu")
    return model(task.classifier.prepare(images)), labels


def measure(task, model, parts: dict[str, Tensor], digit: int) -> dict[str, float]:
    """Return accuracies in percent, the retain loss in nats, and the AUC of the forgotten class's margin."""
    found, margins, mine = {}, [], []
    for part in ("forget", "test_forget", "retain", "test"):
        logits, labels = answers(task, model, parts[part])
        found[part] = 100.0 * (logits.argmax(1) == labels).double().mean().item()
        if part == "retain":
            found["loss"] = torch.nn.functional.cross_entropy(logits, labels).item()
        if part.startswith("test"):
            others = torch.cat([logits[:, :digit], logits[:, digit + 1 :]], 1).logsumexp(1)
            margins.append(logits[:, digit] - others)
            mine.append(labels == digit)
    found["AUC"] = float(roc_auc_score(torch.cat(mine), torch.cat(margins)))
    return found


def one_digit(digit: int, folder: Path) -> dict[str, dict[str, float]]:
    """Return what is measured of base, Retrain and every margin."""
    config, place = demo(digit), folder / f"digit-{digit}"
    row = run(config, place)["methods"]["consensus"]
    material = prepare(RunDir(place), config)
    task, parts = material.task, dict(material.parts)
    negated = NegatedModel(
        task.open(place / "base/model.safetensors"), place / "private/methods/consensus/merged.safetensors"
    )
    found = {"base": measure(task, negated.set_alpha(0.0), parts, digit)}
    found["Retrain"] = measure(task, task.open(place / "reference/model.safetensors"), parts, digit)
    bound = found["base"]["loss"] + max(SLACK[0], SLACK[1] * found["base"]["loss"])
    for margin in MARGINS:
        one = measure(task, negated.set_alpha(row["lowest_alpha"] * margin), parts, digit)
        found[f"× {margin:g}"] = {**one, "within": float(one["loss"] <= bound and one["retain"] >= row["floor"])}
    found["chosen"] = {**measure(task, negated.set_alpha(row["alpha"]), parts, digit), "alpha": row["alpha"]}
    return found


def table(digits: list[dict[str, dict[str, float]]]) -> str:
    """Return mean and worst over the digits, as Markdown."""
    head = ("at", "own rows", "unseen rows", "retain", "test", "retain loss", "AUC of the class", "within both bounds")
    lines = [head, ("---", *["---:"] * 7)]
    for name in digits[0]:
        rows = [one[name] for one in digits]
        cells = [name]
        for key, worst in (
            ("forget", max),
            ("test_forget", max),
            ("retain", min),
            ("test", min),
            ("loss", max),
            ("AUC", min),
        ):
            values, decimals = [row[key] for row in rows], 1 if key not in ("loss", "AUC") else 3
            cells.append(f"{statistics.mean(values):.{decimals}f} ({worst(values):.{decimals}f})")
        within = [row["within"] for row in rows if "within" in row]
        cells.append(f"{sum(within):.0f} of {len(within)}" if within else "")
        lines.append(tuple(cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Run what is not done, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/margin"))
    folder = parser.parse_args().output
    found = []
    for digit in range(10):
        found.append(one_digit(digit, folder))
        print(f"digit {digit}: {json.dumps(found[-1]['chosen'])}", flush=True)
    print("\n" + table(found))


if __name__ == "__main__":
    main()
