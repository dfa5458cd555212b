"""Seconds for choosing α of a CLIP task vector: negmerge against the plain loop over 21 points and a DataLoader.

    python benchmarks/clip_selection.py --clip clip-small --mnist FOLDER --cifar10 FOLDER [--rounds 3]

The plain loop is how it is commonly written: for each α of linspace(0, 1, 21) the weights θ₀ − α·τ are made, and both
validation sets pass through a DataLoader that decodes, resizes and normalises each image. Both see the same rows of the
same images and must choose the same α. Printed are the seconds of both, by turns, and their ratio; what was decoded
and embedded once in the run is counted for neither, and is given apart.
"""

import argparse
import io
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from negmerge.checkpoints import read_state_dict
from negmerge.execution import torch_threads
from negmerge.experiment.config import check_config
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.selecting import Selector
from negmerge.experiment.stages import SeedRun
from negmerge.selection.negated_model import apply_vector


class Encoded(Dataset):
    """Images as PNG bytes, decoded, resized and normalised when asked for."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, classifier) -> None:
        self.labels, self.classifier = labels, classifier
        self.bytes = []
        for image in images.permute(0, 2, 3, 1).numpy():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            self.bytes.append(buffer.getvalue())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int):
        size = self.classifier.shape[1]
        image = Image.open(io.BytesIO(self.bytes[row])).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
        return self.classifier.prepare(pixels[None])[0], self.labels[row]


@torch.no_grad()
def plain_loop(classifier, base: Path, vector: Path, sets: dict[str, Encoded], floor: float) -> float:
    """Return the α that the 21-point loop chooses: the first strict minimum of forget accuracy above the floor."""
    best, chosen, least = 101.0, 0.0, 0.0
    for alpha in np.linspace(0, 1, 21).tolist():
        model = classifier.build()
        model.load_state_dict(apply_vector(base, vector, alpha))
        model.eval()
        found = {}
        for name, data in sets.items():
            right = 0
            for pixels, labels in DataLoader(data, batch_size=128):
                right += int((classifier.narrow(model(pixels), labels).argmax(1) == labels).sum())
            found[name] = 100 * right / len(data)
        least = least or floor * found["retain"]
        if found["retain"] >= least - 1e-9 and found["forget"] < best:
            best, chosen = found["forget"], alpha
    return round(chosen, 10)


def make_run(args, folder: Path) -> tuple[SeedRun, Path]:
    """Prepare a run with two short members and return it with the vector that they merge into."""
    config = check_config(
        {
            "name": "selection",
            "device": "cpu",
            "workers": 1,
            "threads": args.threads,
            "model": {"family": "clip", "path": str(args.clip)},
            "data": {
                "forget": {"source": "mnist", "path": str(args.mnist)},
                "retain": {"source": "cifar10", "path": str(args.cifar10)},
                "most": args.rows,
            },
            "base": {"pretrained": True},
            "pool": {"train": {"steps": 60, "epochs": 100, "clip": 1.0}, "grid": {"lr": [5e-4, 1e-3]}},
            "methods": ["consensus"],
            "selection": {"floor_on": "validation", "max_alpha": 1.0},
            "evaluation": {"membership": [], "most": 100},
        }
    )
    place = RunDir(folder)
    run = SeedRun(place, config, prepare(place, config), 0)
    run.finish()
    return run, next(place.path.glob("private/methods/consensus/*merged.safetensors"))


def on_held_out_rows(selector: Selector) -> Selector:
    """Return a selector that looks at what the paper's loop looks at: held-out rows alone, and no margin."""
    held_out = selector.rows["validation_forget"]
    rows = {**selector.rows, "forget": held_out, "validation_forget": held_out[:0]}
    return replace(selector, rows=rows, rule=selector.rule.model_copy(update={"margin": 1.0}))


def measure(args) -> dict:
    """Return the seconds of both, round by round."""
    with torch_threads(args.threads), tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        run, vector = make_run(args, Path(temporary) / "run")
        prepared = time.perf_counter() - started
        selector, task = on_held_out_rows(run.selector), run.material.task
        classifier, table = task.classifier, task.tables.both
        sets = {
            name: Encoded(*table.take(rows), classifier)
            for name, rows in selector.parts.items()
            if name in ("forget", "retain")
        }
        assert set(read_state_dict(vector)) == set(classifier.build().state_dict())
        rounds = []
        for number in range(args.rounds):
            started = time.perf_counter()
            expected = plain_loop(classifier, run.base, vector, sets, 0.95)
            middle = time.perf_counter()
            curve = Path(temporary) / f"curve-{number}.json"
            chosen = selector.choose(run.base, vector, curve, lambda *_: None)
            ended = time.perf_counter()
            rounds.append({"plain": middle - started, "negmerge": ended - middle})
            if chosen.alpha != expected:
                raise SystemExit(f"the choices differ: {chosen.alpha} and {expected} in the plain loop")
        seconds = {key: median(r[key] for r in rounds) for key in ("plain", "negmerge")}
        return {
            "rows": {name: len(data) for name, data in sets.items()},
            "alpha": chosen.alpha,
            "points": len(chosen.curve),
            "seconds": seconds,
            "ratio": seconds["plain"] / seconds["negmerge"],
            "rounds": rounds,
            "prepared": prepared,
            "threads": args.threads,
        }


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("clip", "mnist", "cifar10"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=20_000, help="seeded rows of each training table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    result = measure(parser.parse_args(arguments))
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
