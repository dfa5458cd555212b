"""Several members at a time, on a CPU and on cards: how many, where, and that the weights are the same."""

from types import SimpleNamespace

import pytest
import torch

from negmerge.checkpoints import read_state_dict
from negmerge.experiment.config import check_config
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.trainer import Trainer, count_cards, on_cards
from negmerge.training import TrainSettings
from negmerge.training.job import TrainingJob
from negmerge.training.pool import Member

DIGITS = {
    "name": "digits",
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 1, "batch_size": 64}},
    "pool": {"train": {"batch_size": 32, "epochs": 1}, "grid": {"lr": [1e-3, 3e-3]}},
    "methods": ["consensus"],
}


def trainer(tmp_path, device="cpu", sent=True, cards=1, monkeypatch=None, **changes):
    if monkeypatch is not None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    config = check_config({**DIGITS, **changes})
    material = SimpleNamespace(device=device, task=SimpleNamespace(SENT=sent), parts={})
    return Trainer(RunDir(tmp_path), config, material, 0)


@pytest.mark.parametrize(
    ("device", "cards", "workers", "expected"),
    [
        ("cpu", 1, 3, 3),
        ("cuda", 1, None, 1),
        ("cuda", 1, 3, 3),
        ("cuda", 2, None, 2),
        ("cuda", 2, 3, 6),
        ("mps", 1, 4, 1),
    ],
)
def test_how_many_members_are_trained_at_a_time(tmp_path, monkeypatch, device, cards, workers, expected):
    changes = {} if workers is None else {"workers": workers}
    made = trainer(tmp_path, device, cards=cards, monkeypatch=monkeypatch, **changes)
    made.cores = 8
    assert made.workers_for(8) == expected and made.workers_for(1) == 1


def test_a_task_that_stays_here_is_trained_one_by_one(tmp_path):
    assert trainer(tmp_path, sent=False, workers=4).workers_for(4) == 1


def test_two_cards_are_used_in_turn(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert count_cards("cuda") == 2 and count_cards("cpu") == 1
    jobs = [TrainingJob(str(i), tmp_path, None, (), {}, 0, "cuda", key="k") for i in range(3)]
    assert [job.device for job in on_cards(jobs, 2)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [job.key for job in on_cards(jobs, 2)] == ["k"] * 3 and on_cards(jobs, 1) == jobs


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("device", "model"),
    [
        ("cpu", {"family": "small-cnn", "width": 8}),
        pytest.param("cuda", {"family": "cifar-resnet"}, marks=CUDA),
    ],
)
def test_the_weights_do_not_hang_on_how_many_are_trained_at_a_time(tmp_path, device, model):
    found = []
    for workers in (1, 2):
        place = RunDir(tmp_path / str(workers))
        config = check_config({**DIGITS, "workers": workers, "device": device, "model": model})
        made = Trainer(place, config, prepare(place, config), 0)
        made.make_originals()
        settings = [TrainSettings(lr=lr, epochs=1, batch_size=32) for lr in (1e-3, 3e-3)]
        jobs = [made.member_job(Member(str(s.lr), s), place.private / "pool" / str(s.lr)) for s in settings]
        made.train(jobs, workers=made.workers_for(len(jobs)), threads=1)
        found.append([read_state_dict(job.checkpoint) for job in jobs])
    for one, other in zip(*found, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())
