"""Recalibration against the batches' own statistics, and α with and without it."""

import copy

import pytest
import torch
from torch import nn

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.selection.buffers import has_statistics, recalibrate
from negmerge.selection.negated_model import NegatedModel, apply_vector
from negmerge.tasks.columns import COLUMNS, columns_of
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import observe_parts, predict


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.9), nn.Linear(4, 2))


def recalibrate_on(model, batches):
    recalibrate(model, [(len(batch), batch) for batch in batches], lambda module, batch: module(batch))


def test_the_statistics_are_means_over_batches():
    model = small()
    model[1].num_batches_tracked.fill_(7)
    batches = [torch.randn(6, 3), 3 * torch.randn(5, 3) + 1]
    recalibrate_on(model, batches)
    hidden = [model[0](batch) for batch in batches]
    torch.testing.assert_close(model[1].running_mean, (hidden[0].mean(0) + hidden[1].mean(0)) / 2)
    torch.testing.assert_close(model[1].running_var, (hidden[0].var(0) + hidden[1].var(0)) / 2)
    assert model[1].num_batches_tracked == 7 and model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())


def test_a_deeper_layer_sees_normalised_batches():
    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3, affine=False))
    recalibrate_on(model, [5 * torch.randn(50, 3) + 4])
    assert model[0].running_mean.min() > 2
    torch.testing.assert_close(model[1].running_mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(model[1].running_var, torch.full((3,), 50 / 49), atol=1e-3, rtol=0)


def test_what_cannot_be_recalibrated():
    assert has_statistics(small()) and not has_statistics(nn.Sequential(nn.LayerNorm(3)))
    assert not has_statistics(nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(InputError, match="no batch-norm layer with running statistics; use buffers: keep"):
        recalibrate_on(nn.Linear(3, 3), [torch.ones(2, 3)])
    with pytest.raises(InputError, match="a batch of one row do not exist"):
        recalibrate_on(small(), [torch.ones(1, 3)])
    with pytest.raises(InputError, match="at least one batch"):
        recalibrate_on(small(), [])


def test_every_alpha_starts_from_the_base(tmp_path):
    classifier = Classifier("small-cnn", {"width": 4}, 3, (1, 8, 8))
    model = classifier.build(0)
    write_state_dict(tmp_path / "base.safetensors", model.state_dict())
    vector = {name: 0.1 * torch.randn_like(value) for name, value in model.named_parameters()}
    write_state_dict(tmp_path / "vector.safetensors", vector)
    images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)

    def adapt(moved):
        recalibrate(moved, ((20, part) for part in classifier.prepare(images).split(20)), classifier.logits)

    def states(alphas, how):
        base, moved_by = tmp_path / "base.safetensors", tmp_path / "vector.safetensors"
        negated = NegatedModel(classifier.load(base), moved_by, base, how)
        return {a: {n: v.clone() for n, v in negated.set_alpha(a).state_dict().items()} for a in alphas}

    forth, back = states([0.0, 0.5, 1.0], adapt), states([1.0, 0.5, 0.0], adapt)
    kept = states([0.5], None)
    for alpha in forth:
        assert all(torch.equal(forth[alpha][name], back[alpha][name]) for name in forth[alpha])
    assert all(torch.equal(forth[0.0][n], v) for n, v in model.state_dict().items())  # nothing merged, nothing moved
    assert torch.equal(kept[0.5]["1.running_mean"], model.state_dict()["1.running_mean"])
    assert not torch.equal(forth[0.5]["1.running_mean"], kept[0.5]["1.running_mean"])
    assert torch.equal(forth[0.5]["0.weight"], kept[0.5]["0.weight"])


def test_a_vector_with_statistics_moves_them_and_holds_variances(tmp_path):
    model = nn.BatchNorm1d(2)
    model.running_var.copy_(torch.tensor([1.0, 1e-7]))
    write_state_dict(tmp_path / "base.safetensors", model.state_dict())
    vector = {"running_mean": torch.tensor([1.0, -2.0]), "running_var": torch.tensor([0.75, 0.0])}
    write_state_dict(tmp_path / "vector.safetensors", vector)
    negated = NegatedModel(copy.deepcopy(model), tmp_path / "vector.safetensors", tmp_path / "base.safetensors")
    for alpha, mean, variance in (
        (1.0, [-1.0, 2.0], [0.25, 1e-5]),
        (2.0, [-2.0, 4.0], [1e-5, 1e-5]),
        (0.0, [0.0, 0.0], [1.0, 1e-7]),
    ):
        moved = negated.set_alpha(alpha)
        assert torch.equal(moved.running_mean, torch.tensor(mean))
        assert torch.equal(moved.running_var, torch.tensor(variance))
        written = apply_vector(tmp_path / "base.safetensors", tmp_path / "vector.safetensors", alpha)
        assert all(torch.equal(written[name], value) for name, value in moved.state_dict().items())


def test_parts_in_one_pass_are_the_parts_one_by_one():
    classifier = Classifier("small-cnn", {"width": 4}, 3, (1, 8, 8))
    model = classifier.build(0)
    images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(50) % 3
    parts = {"a": torch.arange(7), "none": torch.arange(0), "b": torch.arange(49, 20, -1), "c": torch.tensor([3])}
    taken = []

    def take(rows):
        taken.append(len(rows))
        return images[rows], labels[rows]

    asked = {"a": ["loss", "group"], "none": ["loss"], "b": ["correct", "confidence", "loss"], "c": ["group"]}
    seen = observe_parts(classifier, model, take, parts, asked, batch_size=10)
    assert list(seen) == list(parts) and taken == [10, 10, 10, 7]
    for name, rows in parts.items():
        alone = columns_of(predict(classifier, model, images[rows]), labels[rows], asked[name])
        assert list(seen[name]) == asked[name]
        for column, values in alone.items():
            torch.testing.assert_close(seen[name][column], values)
    empty = observe_parts(classifier, model, take, {"none": torch.arange(0)}, {"none": COLUMNS})
    shapes = {column: (len(values), values.dtype) for column, values in empty["none"].items()}
    assert shapes == {column: (0, dtype) for column, (dtype, _) in COLUMNS.items()}
