"""Small runs whose every number is kept in a file beside this one.

The shipped configs of the digits, each with another objective, a tiny CLIP that forgets one source and keeps another,
and `unlearn` on iris.
`PYTHONPATH=src python tests/golden/golden_runs.py` writes the files anew: only where numbers are meant to change, and
with the difference in the message of the commit.
"""

import hashlib
import json
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import TensorDataset

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))

from clip_example import save_colours, save_tiny_clip, tiny_run  # noqa: E402
from negmerge import registry, unlearn  # noqa: E402
from negmerge.checkpoints import read_state_dict  # noqa: E402
from negmerge.experiment.config import check_config, load_config  # noqa: E402
from negmerge.experiment.pipeline import run  # noqa: E402

ROOT = HERE.parents[1]
NAMES = ("digits-class", "digits-random", "digits-table", "clip", "unlearn-iris")
TIMES = {"seconds", "seconds_parts", "workers"}  # they hang on the machine and on the day
CHOICES = {"member", "taken"}  # of what is no number, what was chosen by numbers


def measure(name, folder):
    """Return every number of a golden run, each by its path: `methods.consensus.forget`, `weights.base`."""
    if name == "unlearn-iris":
        return measure_iris()
    config = clip(folder) if name == "clip" else scaled_digits(name)
    place = folder / "run"
    results = json.loads(json.dumps(run(config, place)))
    found = {}
    for section in ("base", "reference", "methods", "pool"):
        found |= dict(numbers_in(results[section] or {}, section))
    found["warnings"] = sorted(f"{one['method']}: {one['name']}" for one in results["warnings"])
    for file in sorted(place.rglob("model.safetensors")):
        if "private" not in file.relative_to(place).parts:
            found[f"weights.{file.parent.relative_to(place).as_posix()}"] = hash_of(read_state_dict(file))
    return found


def scaled_digits(name):
    """The config of that name with all its rows, on a third of the digits, with a small pool and short searches."""
    config = load_config(ROOT / "configs" / f"{name}.yaml").resolved()
    config["seeds"] = config["seeds"][:2] if name == "digits-random" else [0]
    config["device"], config["workers"], config["threads"] = "cpu", 1, 1
    config["evidence"] = {}  # it changes no number that is kept
    config["model"]["width"] = 8
    config["data"]["train_rows"] = [0, 500]
    config["base"]["train"]["epochs"] = 6
    grid = config["pool"]["grid"]
    config["pool"]["grid"] = {"lr": grid["lr"][1:], "weight_decay": grid["weight_decay"], "epochs": [4]}
    config["methods"] = [short_search({k: v for k, v in m.items() if v is not None}) for m in config["methods"]]
    if name == "digits-random":
        holdout = {"objective": "match-holdout", "floor": 0.9, "floor_on": "validation", "retain_rows": 40}
        config["selection"] = {**holdout, "max_alpha": 2.0}
        config["pool"]["grid"]["weight_decay"] = [0.0, 0.1]
        config["methods"] = [m for m in config["methods"] if m.get("label") != "consensus-0.8"]
    if name == "digits-table":
        config["selection"] = {"objective": "match-reference", "search": "grid", "step": 0.25, "retain_rows": 100}
        config["methods"][0]["buffers"] = {"recalibrate": "forget", "rows": 40}
    return check_config(config)


def short_search(method):
    """A row with the last value of each setting that it searches, of fine-tune the last two, and one epoch."""
    module = registry.load("methods", method["name"])
    most = 2 if method["name"] == "fine-tune" else 1
    ranges = {key: list(values) for key, values in getattr(module, "SEARCH", {}).items() if key not in method}
    ranges |= {key: value for key, value in method.items() if isinstance(value, list) and value}
    fixed = {key: values[-most:] if most > 1 else values[-1] for key, values in ranges.items()}
    epochs = {"epochs": 1} if "epochs" in getattr(getattr(module, "Settings", None), "model_fields", {}) else {}
    return {**method, **fixed, **epochs}


def clip(folder):
    """The run of a tiny random CLIP, which both towers and two sources have a part in."""
    save_tiny_clip(folder / "clip")
    save_colours(folder / "colours")
    config = tiny_run("clip", folder / "clip", folder / "colours")
    config["pool"]["train"]["steps"] = 4
    config["pool"]["grid"]["lr"] = [5e-4]
    config["selection"]["max_alpha"] = 2.0
    config["methods"] = ["consensus", "best-single"]
    config["evaluation"] = {"membership": ["svc-confidence"], "most": 200}
    return check_config(config)


def measure_iris():
    """Every number of `examples/own_model.py`, and of the objectives for rows drawn at random on the same flowers."""
    found = dict(numbers_of(runpy.run_path(str(ROOT / "examples" / "own_model.py"))["result"], "example"))
    x, y = (torch.tensor(part) for part in load_iris(return_X_y=True))
    x, y = ((x - x.mean(0)) / x.std(0)).float(), (y + (torch.arange(len(y)) % 7 == 0)) % 3  # some labels are wrong
    forget, validation = torch.arange(150) % 10 == 0, torch.arange(150) % 5 == 1
    retain = ~forget & ~validation
    model, twin = (fit_network(x[rows], y[rows].long()) for rows in (~validation, retain))
    sets = [TensorDataset(x[rows], y[rows].long()) for rows in (forget, retain, validation)]
    pool = {"train": {"batch_size": 5, "optimizer": "sgd"}, "grid": {"lr": [0.1, 0.3], "epochs": [10, 20]}}
    for objective, reference in (("match-reference", twin), ("match-holdout", None)):
        selection = {"objective": objective, "step": 0.25, "max_alpha": 16.0}
        done = unlearn(
            model,
            *sets[:2],
            validation=sets[2],
            reference=reference,
            method="consensus",
            projection="none",
            pool=pool,
            selection=selection,
            seed=3,
        )
        found |= numbers_of(done, objective)
    return found


def fit_network(x, y):
    """A network that learns its rows nearly by heart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


def numbers_of(result, path):
    """Yield (path, value) of what `unlearn` returned."""
    yield from ((f"{path}.{key}", getattr(result, key)) for key in ("alpha", "consensus"))
    yield f"{path}.members", list(result.members)
    yield f"{path}.floor", result.selection.floor
    for point in result.selection.curve:
        yield from ((f"{path}.curve.{point.alpha:g}.{key}", value) for key, value in point.scores.items())
    yield f"{path}.weights", hash_of(result.model.state_dict())


def numbers_in(value, path):
    """Yield (path, value) of the numbers and choices in nested mappings and lists, without times."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        place = f"{path}.{key}"
        if key in TIMES:
            continue
        if key == "layers":
            yield place, hashlib.sha256(json.dumps(inner).encode()).hexdigest()
        elif key in CHOICES or inner is None or isinstance(inner, int | float):
            yield place, inner
        elif isinstance(inner, dict | list):
            yield from numbers_in(inner, place)


def hash_of(state):
    """The hash of names, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {list(state[name].shape)} {state[name].dtype}".encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def arithmetic():
    """A hash that is the same where the machine and its libraries round alike: of a few steps of training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU(), nn.Conv2d(16, 32, 3, 2)]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 70), nn.LayerNorm(70))
        images, labels = torch.randn(96, 3, 9, 9), torch.arange(96) % 70
        attention = nn.functional.scaled_dot_product_attention(*(torch.randn(2, 2, 40, 16) for _ in range(3)))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    values = np.linspace(0.1, 3.0, 500) @ np.sin(np.arange(500.0))
    return hash_of({**model.state_dict(), "attention": attention, "numpy": torch.tensor(values)})


def read(name):
    """The kept numbers of a golden run, and the arithmetic they were made with."""
    kept = json.loads((HERE / f"{name}.json").read_text())
    return kept["numbers"], kept["arithmetic"]


def main(names):
    """Write the files of these runs, or of all."""
    torch.set_num_threads(1)
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            numbers = measure(name, Path(folder))
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(numbers.items()))
        text = f'{{"arithmetic": "{arithmetic()}",\n"numbers": {{\n{lines}\n}}}}\n'
        (HERE / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
