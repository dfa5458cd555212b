"""The formulas of the competitors, by hand and on models of two parameters."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from negmerge import registry
from negmerge.errors import InputError
from negmerge.tasks.image_classification.boundary import nearest_classes
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.training import TrainSettings
from negmerge.training.loop import fit
from negmerge.unlearning import relabelling
from negmerge.unlearning.context import TrainingData
from negmerge.unlearning.methods import random_labels
from negmerge.unlearning.methods.boundary_expanding import widen_head
from negmerge.unlearning.methods.influence import newton_step
from negmerge.unlearning.methods.l1_sparse import l1_norm, penalty
from negmerge.unlearning.methods.salun import holding, salience_mask
from negmerge.unlearning.woodfisher import inverse_hessian_vector


def ridge_problem(rows, damping):
    """A ridge regression y ≈ θ·x at its optimum over all rows, every residual +1 or −1.

    Then a row's gradient is ±x, and the empirical Fisher matrix is the Hessian of the squared error.
    """
    g = torch.Generator().manual_seed(3)
    x = torch.randn(rows, 2, generator=g, dtype=torch.float64)
    signs = torch.where(torch.rand(rows, generator=g) < 0.5, -1.0, 1.0).double()
    theta = -(signs[:, None] * x).mean(0) / damping
    return x, x @ theta - signs, theta


@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_influence_is_the_closed_form_of_ridge_regression(damping):
    x, y, theta = ridge_problem(40, damping)
    retain, forget = torch.arange(30), torch.arange(30, 40)
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    model.weight.data.copy_(theta)
    gradient = (x * (x @ theta - y)[:, None]).mean(0) + damping * theta
    assert gradient.abs().max() < 1e-12  # the optimum over all rows

    def losses(rows):
        return (0.5 * (model(x[part])[:, 0] - y[part]).square() for part in rows.split(7))

    step = newton_step(losses, list(model.parameters()), forget, retain, retain, damping)
    xr, yr = x[retain], y[retain]
    closed = torch.linalg.solve(xr.T @ xr / 30 + damping * torch.eye(2, dtype=torch.float64), xr.T @ yr / 30)
    torch.testing.assert_close(theta + step.vector[0][0], closed, rtol=1e-6, atol=1e-8)
    assert (closed - theta).norm() > 0.01


def test_the_inverse_hessian_vector_product_is_that_of_the_dense_matrix():
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)).double()
    x, y = torch.randn(25, 3, generator=g, dtype=torch.float64), torch.randint(3, (25,), generator=g)
    parameters = list(model.parameters())

    def losses():
        return (functional.cross_entropy(model(x[r]), y[r], reduction="none") for r in torch.arange(25).split(10))

    rows = torch.stack(
        [
            torch.cat([p.flatten() for p in torch.autograd.grad(loss, parameters, retain_graph=True)])
            for part in losses()
            for loss in part
        ]
    )
    vector = [torch.randn(p.shape, generator=g, dtype=torch.float64) for p in parameters]
    flat = torch.cat([v.flatten() for v in vector])
    dense = torch.linalg.solve(0.05 * torch.eye(len(flat), dtype=torch.float64) + rows.T @ rows / 25, flat)
    found = inverse_hessian_vector(losses, parameters, vector, 25, 0.05)
    torch.testing.assert_close(
        torch.cat([v.flatten() for v in found.vector]), dense, rtol=1e-4, atol=1e-5
    )  # a residual of 1e-6, over λ
    assert 0 < found.iterations <= 25 and found.residual < 1e-6
    # The rank-one updates of WoodFisher, row by row, end at the same vector.
    inverse = torch.eye(len(flat), dtype=torch.float64) / 0.05
    for row in rows:
        image = inverse @ row
        inverse -= torch.outer(image, image) / (25 + row @ image)
    torch.testing.assert_close(inverse @ flat, dense, rtol=1e-8, atol=1e-10)


def test_no_gradient_no_step():
    model = nn.Linear(2, 1, bias=False)
    found = inverse_hessian_vector(
        lambda: [model(torch.ones(3, 2))[:, 0].square()], [model.weight], [torch.zeros(1, 2)], 3, 1.0
    )
    assert not found.vector[0].any() and found.iterations == 0 and found.residual == 0.0


def test_the_salience_mask_by_hand():
    gradients = [torch.tensor([[0.1, -5.0], [2.0, 0.0]]), torch.tensor([-2.0, 0.3])]
    half = salience_mask(gradients, 0.5)  # the third largest of six magnitudes is 2, tied
    assert half[0].tolist() == [[False, True], [True, False]] and half[1].tolist() == [True, False]
    third = salience_mask(gradients, 1 / 3)  # the second largest is 2: both that tie are kept
    assert sum(int(mask.sum()) for mask in third) == 3
    assert salience_mask(gradients, 1 / 6)[0].tolist() == [[False, True], [False, False]]
    assert all(mask.all() for mask in salience_mask(gradients, 1.0))
    assert all(mask.all() for mask in salience_mask([torch.zeros(3), torch.tensor([1.0])], 0.5))  # γ = 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_held_weight_moves_by_nothing(optimizer):
    model = nn.Linear(2, 1, bias=False)
    model.weight.data.copy_(torch.tensor([[0.3, 0.7]]))
    before_step, after_step = holding([model.weight], [torch.tensor([[True, False]])])
    settings = TrainSettings(
        optimizer=optimizer, lr=0.1, weight_decay=0.5, momentum=0.9, schedule="constant", epochs=4, clip=1.0
    )
    fit(
        model,
        lambda epoch: [torch.tensor([[1.0, 100.0]])] * 3,
        lambda m, x: m(x).sum(),
        settings,
        steps_per_epoch=3,
        before_step=before_step,
        after_step=after_step,
    )
    assert model.weight[0, 1].item() == torch.tensor(0.7).item()  # bit for bit
    alone = nn.Linear(1, 1, bias=False)  # the other weight moves as if it were alone: nothing leaks through clipping
    alone.weight.data.fill_(0.3)
    fit(alone, lambda epoch: [torch.ones(1, 1)] * 3, lambda m, x: m(x).sum(), settings, steps_per_epoch=3)
    assert model.weight[0, 0].item() == pytest.approx(alone.weight.item(), abs=1e-6)


def test_the_penalty_fades_linearly_and_counts_every_weight():
    assert [penalty(1e-4, epoch, 10) for epoch in (0, 5, 9, 10)] == pytest.approx([1e-4, 5e-5, 1e-5, 0.0])
    model = nn.Linear(2, 1)
    model.weight.data.copy_(torch.tensor([[3.0, -4.0]]))
    model.bias.data.fill_(-0.5)
    norm = l1_norm(model)
    norm.backward()
    assert norm.item() == 7.5 and model.weight.grad.tolist() == [[1.0, -1.0]] and model.bias.grad.tolist() == [-1.0]


class TwoPixels(nn.Module):
    """Three linear classes of a grey image of two pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]]))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


class Half(Classifier):
    """Normalises in place, as families may: (x / 255 − 0.5) / 0.25."""

    def prepare(self, images):
        return images.to(torch.float32).div_(255.0).sub_(0.5).div_(0.25)

    def logits(self, model, batch):
        return model(batch)


def test_the_nearest_class_by_hand():
    classifier, model = Half("small-cnn", {}, 3, (1, 1, 2)), TwoPixels()
    images = torch.tensor([[140, 130], [250, 10], [20, 255]], dtype=torch.uint8)[:, None, None, :]
    labels = torch.tensor([0, 0, 1])
    # The first: the step lowers pixel 0 and raises pixel 1, to (114.5, 155.5), across to class 1. The second goes to
    # (224.5, 35.5), logits 6.1, −5.8, −0.3: its own class still wins, so the next one is taken. The third mirrors it.
    found = nearest_classes(classifier, model, images, labels, 0.1)
    assert found.tolist() == [1, 2, 2]
    assert model.weight.grad is None and images.dtype == torch.uint8
    # With a step over the whole range the first image becomes (0, 255): class 1 at its clearest.
    assert nearest_classes(classifier, model, images, labels, 1.0)[0] == 1


def test_each_row_stays_in_its_own_head():
    classifier = Half("small-cnn", {}, 3, (1, 1, 2), heads=(2, 1))
    images = torch.tensor([[140, 130], [250, 10], [20, 255]], dtype=torch.uint8)[:, None, None, :]
    assert nearest_classes(classifier, TwoPixels(), images, torch.tensor([0, 0, 1]), 0.1).tolist() == [1, 1, 0]
    drawn = classifier.draw_labels(torch.tensor([0, 1, 2] * 100), torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64 and set(drawn[0::3].tolist()) == set(drawn[1::3].tolist()) == {0, 1}
    assert set(drawn[2::3].tolist()) == {2}
    logits = classifier.logits(TwoPixels(), classifier.prepare(images))
    by_hand = functional.cross_entropy(logits[:2, :2], torch.tensor([0, 1])) * 2 / 3  # the third has one class: 0
    loss = ImageClassification(classifier, None).loss(TwoPixels(), (images, torch.tensor([0, 1, 2])))
    assert loss.item() == pytest.approx(by_hand.item())


def test_the_step_is_in_pixels_whatever_the_normalisation():
    seen = []

    class Watching(Half):
        def prepare(self, images):
            seen.append(images.detach().clone())
            return super().prepare(images)

    images = torch.tensor([[[[140, 250]]]], dtype=torch.uint8)
    nearest_classes(Watching("small-cnn", {}, 3, (1, 1, 2)), TwoPixels(), images, torch.tensor([0]), 0.1)
    assert images.flatten().tolist() == [140, 250]  # untouched by a family that normalises in place
    assert (seen[1] - seen[0]).flatten().tolist() == [-25.5, 5.0]  # a tenth of 255, cut at white


def test_a_wider_head_answers_the_same():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    before = model(x)
    state = torch.get_rng_state()
    assert widen_head(model, 3, seed=1) == "2"
    assert torch.equal(torch.get_rng_state(), state)
    after = model(x)
    assert after.shape == (5, 4)
    torch.testing.assert_close(after[:, :3], before)
    again = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    widen_head(again, 3, seed=1)
    assert torch.equal(again[2].weight[3], model[2].weight[3])
    with pytest.raises(InputError, match="needs a linear layer with 7 outputs; this model has none"):
        widen_head(model, 7, seed=1)


def test_one_step_of_ascent_by_hand(make_context):
    """θ ← θ + lr · (∇CE − weight decay · θ) for the whole forget set in one batch."""
    context = make_context("gradient-ascent")
    data = context.data
    module = registry.load("methods", "gradient-ascent")
    rows = len(data.forget)
    settings = module.Settings(lr=0.01, epochs=1, batch_size=rows, weight_decay=0.1, augment="none")
    made = data.task.open(module.unlearn(context, settings).checkpoint)
    model = data.task.open(context.base).train()
    data.task.loss(model, data.task.batch(data.forget, "cpu")).backward()
    for (name, ours), theirs in zip(made.named_parameters(), model.parameters(), strict=True):
        expected = theirs + 0.01 * (theirs.grad - 0.1 * theirs)
        torch.testing.assert_close(ours, expected, atol=2e-6, rtol=1e-4, msg=name)


def test_random_labels_are_uniform_new_in_each_epoch_and_before_the_retain_rows(make_context):
    data: TrainingData = make_context("random-labels").data
    settings = random_labels.Settings(batch_size=64, augment="none")
    batches, steps = relabelling.random_label_batches(data, settings, True)
    first, second, again = list(batches(0)), list(batches(1)), list(batches(0))
    forget_steps = -(-len(data.forget) // 64)
    assert steps == len(first)
    drawn = torch.cat([labels for _, labels in first[:forget_steps]])
    assert len(drawn) == len(data.forget) and set(drawn.tolist()) == set(range(10))
    assert drawn.bincount(minlength=10).max() < 3 * len(drawn) / 10
    kept = torch.cat([labels for _, labels in first[forget_steps:]])
    assert 3 not in kept and len(kept) >= len(data.retain) - 1
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert not torch.equal(drawn, torch.cat([labels for _, labels in second[:forget_steps]]))
    alone, few = relabelling.random_label_batches(data, settings, False)
    assert few == forget_steps == len(list(alone(0)))


def test_the_augmentation_is_that_of_the_base(make_context):
    data = make_context("fine-tune").data
    settings = random_labels.Settings
    assert data.augment == "crop1"
    assert settings().training(data).augment == "crop1" and settings(augment="none").training(data).augment == "none"


def test_the_mean_gradient_in_batches_is_that_of_all_rows(make_context):
    """The mean gradient over batches is the gradient of the mean over all rows."""
    from negmerge.unlearning.gradients import mean_gradient, row_losses, trained_parameters

    data = make_context("salun").data
    model = data.task.open(make_context("salun").base)
    parameters = trained_parameters(model)
    ours = mean_gradient(partial(row_losses, data, model), parameters, data.retain)
    images, labels = data.task.batch(data.retain, "cpu")
    model.eval()
    whole = functional.cross_entropy(model(data.task.classifier.prepare(images)), labels)
    for a, b in zip(ours, torch.autograd.grad(whole, parameters), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)
