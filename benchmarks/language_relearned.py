"""How fast forgotten answers come back when a few of them are trained on, for each model of a language run.

    python benchmarks/language_relearned.py RUN [--rows ROW…] [--write PAGE]

Trains a LoRA adapter of rank 8 on some of the forgotten answers alone (`--known` of them, AdamW, full batches), on the
model that each row wrote, on the base and on Retrain, and follows the mean probability exp(−ℓ) of the *other* forgotten
answers over the steps. As many unseen answers tell what any training of the kind does. Rows and adapters of a draw are
the same for all models. What Retrain does is what training on these answers does to a model that never learnt them: a
model that forgot stays with it.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from language_held_out import opened, written
from torch import Tensor

from negmerge.evidence.brief_training import Way
from negmerge.experiment.config import load_config
from negmerge.experiment.stages import SeedRun
from negmerge.training.adapters import AdapterSettings
from training import write

POINTS = (0, 5, 10)  # steps after which answers are scored


def relearned(directory: Path, options: Any) -> str:
    """Return the table of one run as Markdown. Raises ValueError for a row that the run has not written."""
    with opened(directory, load_config(directory / "config.yaml")) as run:
        files = written(directory, run)
        if missing := [name for name in options.rows or () if name not in files]:
            raise ValueError(f"{directory} has no row {missing[0]}: it has {', '.join(files)}")
        lines = []
        for name, file in files.items():
            if options.rows and name not in {"base", "Retrain", *options.rows}:
                continue
            curves = torch.stack([curve(run, file, number, options) for number in range(options.draws)])
            means, spread = 100 * curves.mean(0), 100 * curves[:, 0, -1].std()
            others = [f"{value:.1f}" for value in means[0]]
            lines.append(
                [name, *others[:-1], f"{others[-1]} ± {spread:.1f}", f"{means[1, 0]:.1f} → {means[1, -1]:.1f}"]
            )
            print(" | ".join(lines[-1]), flush=True)
    head = ("model", *(f"{point} steps" for point in POINTS), "unseen answers")
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)) + "\n"


def curve(run: SeedRun, file: Path, number: int, options: Any) -> Tensor:
    """Return the mean probabilities [2, points] of other forgotten answers and of unseen ones, of one draw."""
    task, device, parts = run.material.task, run.material.device, run.material.parts
    generator = torch.Generator().manual_seed(number)
    forget = parts["forget"][torch.randperm(len(parts["forget"]), generator=generator)]
    others = forget[options.known :]
    if not len(others):
        raise ValueError(f"--known {options.known}: there are {len(forget)} forgotten answers, and some must be left")
    unseen = parts["test"][torch.randperm(len(parts["test"]), generator=generator)][: len(others)]
    model = task.open(file, device)
    optimiser = Way("adamw", AdapterSettings(r=8)).prepare(model, options.lr, number, "relearning")
    batch = task.batch(forget[: options.known], device)
    found = []
    for step in range(POINTS[-1] + 1):
        if step:
            model.train()
            optimiser.zero_grad()
            task.loss(model, batch).backward()
            optimiser.step()
        if step in POINTS:
            scored = {"others": others, "unseen": unseen}
            columns = task.observe(model, scored, dict.fromkeys(scored, ("confidence",)))
            found.append([float(columns[part]["confidence"].double().mean()) for part in scored])
            print(f"  {file.parent.name}, draw {number}, {step} steps: {100 * found[-1][0]:.1f}", flush=True)
    return torch.tensor(found, dtype=torch.float64).T


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="beside base and Retrain; all unless given")
    parser.add_argument("--known", type=int, default=5, help="forgotten answers that are trained on")
    parser.add_argument("--draws", type=int, default=3, help="draws of these answers")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options: Any = parser.parse_args(words)
    if options.draws < 2:
        parser.error("--draws: two at least, for a spread")
    text = relearned(options.run, options)
    print(text)
    if options.write:
        write(options.write, text, "relearned")


if __name__ == "__main__":
    main()
