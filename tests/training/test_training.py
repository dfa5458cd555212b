"""The loop, its schedules, the grid, and jobs that resume."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.seeding import derive_seed
from negmerge.tasks.image_classification.batches import ImageBatches, resident
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.sources import digits
from negmerge.tasks.image_classification.store import Store, tables_of
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.training import TrainSettings
from negmerge.training import job as job_module
from negmerge.training.job import TrainingJob, train
from negmerge.training.loop import Epoch, fit
from negmerge.training.pool import expand_grid
from negmerge.training.progress import Progress


def rates(steps=10, **settings):
    made = TrainSettings(lr=1.0, **settings)
    return [made.learning_rate(step, steps) for step in range(steps)]


def test_schedules_by_hand():
    assert rates(schedule="constant") == [1.0] * 10
    assert rates(schedule="cosine") == pytest.approx([(1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)])
    assert rates(schedule="step", milestones=(0.5, 0.8), gamma=0.1) == pytest.approx([1] * 5 + [0.1] * 3 + [0.01] * 2)
    assert rates(schedule="one-cycle") == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.8, 0.6, 0.4, 0.2])
    warm = rates(schedule="cosine", warmup_steps=4)
    assert warm[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0]) and warm[4] == 1.0
    assert all(rate > 0 for rate in rates(1, schedule="one-cycle") + rates(3, schedule="one-cycle", peak=0.1))


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0},
        {"lr": float("nan")},
        {"epochs": 0},
        {"optimizer": "adam"},
        {"label_smoothing": 1},
        {"lrr": 1},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises((ValidationError, InputError)):
        TrainSettings(**settings)


def test_seeds_of_parts_differ():
    seeds = {derive_seed(s, *parts) for s in (0, 1) for parts in (("a",), ("b",), ("a", 0), ("a", 1))}
    assert len(seeds) == 8


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_step_by_hand(optimizer):
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    settings = TrainSettings(optimizer=optimizer, lr=0.1, weight_decay=0.5, schedule="constant", epochs=1)
    fit(model, lambda epoch: [torch.ones(1, 1)], lambda m, x: (3 * m(x)).sum(), settings, steps_per_epoch=1)
    expected = 1 - 0.1 * (3 + 0.5) if optimizer == "sgd" else 1 - 0.1 * 0.5 - 0.1
    assert model.weight.item() == pytest.approx(expected, abs=1e-6)


def test_clipping_bounds_the_gradient():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    settings = TrainSettings(optimizer="sgd", lr=0.1, schedule="constant", epochs=1, clip=1.0)
    fit(model, lambda epoch: [torch.ones(1, 1)], lambda m, x: (30 * m(x)).sum(), settings, steps_per_epoch=1)
    assert model.weight.item() == pytest.approx(0.9, abs=1e-5)


def test_frozen_statistics_stay_and_are_used():
    def trained(freeze):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        settings = TrainSettings(optimizer="sgd", lr=0.1, epochs=2, freeze_statistics=freeze)
        batch = torch.arange(8.0).reshape(4, 2)
        seen = []

        def loss(m, x):
            seen.append(m[1](m[0](x)).detach())
            return m(x).pow(2).mean()

        fit(model, lambda epoch: [batch], loss, settings, steps_per_epoch=1)
        return model[1], seen[0]

    frozen, first = trained(True)
    assert not frozen.running_mean.any() and (frozen.running_var == 1).all() and frozen.num_batches_tracked == 0
    assert not torch.equal(frozen.weight, torch.ones(3)) and first.mean(0).abs().max() > 0.1
    moving, first = trained(False)
    assert moving.running_mean.any() and moving.num_batches_tracked > 0 and first.mean(0).abs().max() < 1e-5
    with pytest.raises(InputError, match="freeze_statistics: the model has no running statistics"):
        fit(nn.Linear(1, 1), lambda e: [], lambda m, b: m(b), TrainSettings(freeze_statistics=True), steps_per_epoch=1)


def test_hooks_stand_before_and_after_the_optimizer_step():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    seen = []

    def before(module):
        seen.append(("before", module.weight.item(), module.weight.grad.item()))
        module.weight.grad.fill_(100.0)  # what the hook leaves is what is clipped and applied

    def after(module):
        seen.append(("after", module.weight.item()))

    settings = TrainSettings(optimizer="sgd", lr=0.25, schedule="constant", epochs=1, clip=1.0)
    fit(
        model,
        lambda epoch: [torch.ones(1, 1)],
        lambda m, x: (3 * m(x)).sum(),
        settings,
        steps_per_epoch=1,
        before_step=before,
        after_step=after,
    )
    assert seen == [("before", 1.0, 3.0), ("after", pytest.approx(0.75, abs=1e-5))]


def test_divergence_is_said():
    settings = TrainSettings(optimizer="sgd", lr=1e6, epochs=9)
    with pytest.raises(
        NegmergeError, match=r"training diverged: the loss became (inf|nan) in epoch \d of 9 at lr 1e\+06"
    ):
        fit(
            nn.Linear(2, 1),
            lambda e: [torch.ones(4, 2)] * 20,
            lambda m, x: m(x).pow(4).sum(),
            settings,
            steps_per_epoch=20,
        )


def test_batches_cover_every_row_and_are_seeded():
    images, labels = torch.arange(33).to(torch.uint8)[:, None, None, None], torch.arange(33)
    batches = ImageBatches(images, labels, TrainSettings(batch_size=8), seed=1)
    seen = [label for _, batch in batches(0) for label in batch.tolist()]
    assert batches.steps == 4 and len(set(seen)) == 32  # a last batch of one row is left out
    assert (
        [b.tolist() for _, b in batches(0)]
        == [b.tolist() for _, b in batches(0)]
        != [b.tolist() for _, b in batches(1)]
    )


def test_dropout_is_seeded_by_the_epoch_and_global_random_numbers_stay():
    images, labels = torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64)
    settings = TrainSettings(batch_size=4, epochs=2)
    model, seen = nn.Linear(1, 1, bias=False), []

    def noise(model, batch):
        seen.append(torch.rand(()).item())  # what a dropout layer would draw
        return model.weight.sum()

    def run(seed, start=None):
        seen.clear()
        batches = ImageBatches(images, labels, settings, seed)
        fit(model, batches, noise, settings, steps_per_epoch=2, start=start)
        return list(seen)

    before = torch.random.get_rng_state()
    whole = run(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(set(whole)) == 4 and run(0) == whole != run(1)
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    assert run(0, start=Epoch(1, 0.0, optimizer)) == whole[2:]


def test_images_move_to_the_device_as_a_whole_where_they_fit(monkeypatch):
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    assert resident(images, labels, "cpu")[0] is images
    assert [part.device.type for part in resident(images, labels, "meta")] == ["meta", "meta"]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (31, 100))
    assert resident(images, labels, "cuda")[0] is images  # 16 bytes are more than half of 31


def test_the_grid_is_a_product_in_order():
    members = expand_grid(
        {"epochs": 3, "optimizer": "sgd"}, {"lr": [0.1, 0.01], "augment": ["none", "crop+flip"], "seed": [0, 1]}
    )
    assert [m.name for m in members][:3] == [
        "000-lr0.1-augmentnone-seed0",
        "001-lr0.1-augmentnone-seed1",
        "002-lr0.1-augmentcrop+flip-seed0",
    ]
    assert len(members) == 8 and members[-1].settings == TrainSettings(
        epochs=3, optimizer="sgd", lr=0.01, augment="crop+flip", seed=1
    )


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"lrr": [1]}, r"pool.grid: 'lrr' is no training setting \(did you mean 'lr'\?\)"),
        ({"lr": []}, "pool.grid.lr: give a list of at least one value"),
        ({"lr": 0.1}, "pool.grid.lr: give a list"),
        ({"lr": [0.1, -1]}, "pool member 001-lr-1: lr: Input should be greater than 0".replace("-1:", ".1:")),
        ({"epochs": [5, 5]}, "pool members 000-epochs5 and 001-epochs5 have the same settings"),
        ({"momentum": [0.0, 0.9]}, "pool: momentum is in train and in grid; leave it out of one"),
    ],
)
def test_bad_grids(grid, message):
    with pytest.raises(InputError, match=message):
        expand_grid({"momentum": 0.9}, grid)


@pytest.fixture
def make_job(tmp_path):
    source = digits.load(digits.Settings())
    store = Store(tmp_path / "data")
    store.write(tables_of(source))

    def make(name, **more):
        values = {
            "name": name,
            "directory": tmp_path / name,
            "task": ImageClassification(Classifier("small-cnn", {"width": 8}, 10, (1, 8, 8)), store),
            "rows": tuple(range(300)),
            "settings": {"epochs": 4, "lr": 0.01, "augment": "crop1"},
            "seed": 5,
            "device": "cpu",
            "resumable": True,
        }
        return TrainingJob(**{**values, **more})

    return make


def test_an_interrupted_job_goes_on_and_ends_the_same(make_job, monkeypatch):
    whole = make_job("whole")
    facts = train(whole)
    assert len(facts["losses"]) == 4 and facts["losses"][-1] < facts["losses"][0]
    broken = make_job("broken")
    save = Progress.save

    def stop_after_two(progress, model, epoch):
        save(progress, model, epoch)
        if epoch.number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "save", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    assert not broken.is_done and broken.state_file.exists()
    monkeypatch.setattr(Progress, "save", save)
    again = train(broken)
    assert again["losses"] == facts["losses"] and not broken.state_file.exists()
    assert broken.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    monkeypatch.setattr(job_module, "fit_rows", None)  # a finished job is not done again
    assert train(broken) == again


def test_a_member_starts_from_its_checkpoint_and_names_itself_when_it_diverges(make_job):
    base = make_job("base")
    train(base)
    member = make_job("member", start=base.checkpoint, resumable=False, settings={"epochs": 1, "lr": 1e-9})
    train(member)
    a, b = read_state_dict(base.checkpoint), read_state_dict(member.checkpoint)
    torch.testing.assert_close(a["0.weight"], b["0.weight"], atol=1e-6, rtol=0)
    with pytest.raises(NegmergeError, match="member wild: training diverged"):
        train(make_job("member wild", start=base.checkpoint, settings={"epochs": 3, "lr": 1e30, "optimizer": "sgd"}))
