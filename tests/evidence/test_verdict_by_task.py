"""In every task a model that only hides what it knows is called suppressed, and a further Retrain forgotten."""

from pathlib import Path

import pytest
import torch
from known_models import check_words, trained_files
from torch import nn
from torch.utils.data import TensorDataset

import negmerge
from clip_example import save_colours, save_tiny_clip, tiny_run
from conftest import CONFIG
from negmerge.experiment.config import check_config
from negmerge.experiment.prepare import load_unwritten
from negmerge.requests.split_files import PARTS
from negmerge.tasks.user.batches import Loading, forward_batch, loss_of_batch
from negmerge.tasks.user.task import UserClassifier
from negmerge.training import TrainSettings

TESTS = {"depth": {}, "quantisation": {}, "three-sample": {"resamples": 99}}
HERE = Path(__file__).parent


def checked(config, folder, settings, tests=TESTS, few=None):
    """Train the models of a config's task, on `few` rows of a part at most, and check the verdicts."""
    material = load_unwritten(check_config(config))
    parts = {name: rows[:few] for name, rows in material.parts.items()}
    files = trained_files(material.task, parts, TrainSettings(**settings), folder, material.task.start)
    check_words(material.task, parts, files, tests, kind=material.split.kind)


@pytest.mark.heavy(10)
def test_image_classification(tmp_path):
    checked(CONFIG, tmp_path, CONFIG["base"]["train"])


@pytest.mark.heavy(15)
def test_text_classification(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parent / "text"))
    from test_text_task import write
    from tiny_models import rows, run_of_texts

    data = write(tmp_path / "texts", train=rows(240), test=rows(60, seed=1))
    config = run_of_texts(data, methods=["consensus"])
    checked(config, tmp_path, config["base"]["train"], {**TESTS, "offset": {}})


@pytest.mark.heavy(20)
def test_zero_shot(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGMERGE_CACHE", str(tmp_path / "cache"))
    save_tiny_clip(tmp_path / "clip")
    save_colours(tmp_path)
    settings = {"optimizer": "adamw", "lr": 3e-3, "epochs": 25, "batch_size": 32, "schedule": "cosine"}
    checked(tiny_run("tiny", tmp_path / "clip", tmp_path), tmp_path, settings, few=300)


@pytest.mark.heavy(40)
def test_causal_lm(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE.parent / "language"))
    from tiny_language import config_of, facts, save, write

    save(tmp_path / "model", tied=False)  # so that the last layer can change alone
    write(tmp_path / "facts.jsonl", facts(48))
    write(tmp_path / "unseen.jsonl", facts(8, seed=1))
    checked(config_of(tmp_path), tmp_path, {"epochs": 60, "lr": 6e-3, "batch_size": 8, "warmup_steps": 10})


def rows_of(count, seed, forget):
    """Rows of four classes by the signs of two inputs, of the fourth alone or of the others."""
    x = torch.randn(4 * count, 16, generator=torch.Generator().manual_seed(seed))
    y = (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
    chosen = ((y == 3) == forget).nonzero()[:count, 0]
    return TensorDataset(x[chosen], y[chosen])


SETS = {"forget": rows_of(60, 0, True), "retain": rows_of(300, 1, False), "validation": rows_of(100, 2, False)}
FIT = {"optimizer": "adamw", "lr": 1e-2, "epochs": 15, "batch_size": 32}


def network(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The task of a user's own module, its parts, and its models."""
    task = UserClassifier(network(0), SETS, forward_batch, loss_of_batch, Loading(None, {}), classes=4)
    parts = {**{name: torch.empty(0, dtype=torch.int64) for name in PARTS}, **task.parts()}
    parts["test"] = parts["validation"]
    return task, parts, trained_files(task, parts, TrainSettings(**FIT), tmp_path_factory.mktemp("own"), network)


def test_a_module_of_ones_own(own):
    check_words(*own, TESTS, kind="rows")


def test_unlearn_that_only_moves_the_last_layer_is_called_suppressed(own):
    task, _, files = own
    base = task.open(files["base"])
    base[0].requires_grad_(False)
    done = negmerge.unlearn(
        base,
        **SETS,
        reference=task.open(files["reference"]),
        pool={"train": {"optimizer": "adamw", "batch_size": 20}, "grid": {"lr": [1e-2, 3e-2], "epochs": [2, 4]}},
        selection={"objective": "retain-floor"},
        evidence=["depth", "quantisation"],
    )
    assert done.verdict == "suppressed" and done.results["verdict"]["because"] == ["depth"]
    assert torch.equal(done.model[0].weight, base[0].weight)
