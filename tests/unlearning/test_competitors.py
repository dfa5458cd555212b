"""What each competitor does to a small network that is to forget one digit."""

import pytest
import torch

from negmerge import registry
from negmerge.checkpoints import read_state_dict
from negmerge.training import TrainSettings
from negmerge.unlearning.gradients import mean_gradient, row_losses, trained_parameters
from negmerge.unlearning.methods import salun, sisa

SHORT = TrainSettings(epochs=2, lr=0.01, batch_size=64)  # where it does not matter how well a model answers
# Settings under which a method shows what it is for, then bounds in percent: forget at most, retain at least.
EXPECTED = [
    ("fine-tune", {"lr": 0.01}, 85, 98),
    ("fine-tune", {"lr": 0.1}, 30, 95),
    ("l1-sparse", {"lr": 0.01, "gamma": 1e-5}, 85, 98),
    ("gradient-ascent", {"lr": 2e-3}, 80, 95),
    ("random-labels", {"lr": 0.1}, 20, 93),
    ("random-labels", {"lr": 5e-4, "retain": False}, 50, 90),
    ("influence", {"scale": 2.0}, 60, 95),
    ("boundary-shrink", {"lr": 1e-3}, 10, 95),
    ("boundary-expanding", {"lr": 5e-4}, 40, 85),
    ("salun", {"lr": 0.1}, 20, 95),
    ("salun", {"lr": 5e-4, "retain": False}, 50, 90),
    ("sisa", {}, 0, 93),
    ("retrain", {}, 0, 95),
    ("best-single", {}, 20, 94),
    ("greedy", {}, 20, 94),
]


@pytest.mark.parametrize(("name", "settings", "forget", "retain"), EXPECTED)
def test_forget_falls_and_retain_holds(name, settings, forget, retain, make_context):
    context = make_context(name)
    module = registry.load("methods", name)
    outcome = module.unlearn(context, module.Settings(**settings))
    scores = context.judge(outcome.checkpoint) if outcome.checkpoint else outcome.selection.scores
    base = context.judge(context.base)
    assert scores["forget"] <= forget < base["forget"]
    assert scores["retain"] >= retain


def test_a_stronger_penalty_leaves_smaller_weights(make_context):
    module = registry.load("methods", "l1-sparse")
    norms = []
    for i, gamma in enumerate([0.0, 1e-4, 1e-3]):
        context = make_context("l1-sparse", f"gamma{i}")
        outcome = module.unlearn(context, module.Settings(gamma=gamma, epochs=4))
        state = read_state_dict(outcome.checkpoint)
        norms.append(sum(v.abs().sum() for k, v in state.items() if k.endswith((".weight", ".bias"))))
    assert norms[0] > norms[1] > norms[2]


def test_without_a_penalty_l1_sparse_is_fine_tuning(make_context):
    made = []
    for name, more in (("l1-sparse", {"gamma": 0.0}), ("fine-tune", {})):
        module = registry.load("methods", name)
        context = make_context("fine-tune", name)  # the seed goes by the name
        made.append(read_state_dict(module.unlearn(context, module.Settings(epochs=2, lr=0.01, **more)).checkpoint))
    assert all(torch.equal(made[0][key], made[1][key]) for key in made[0])


@pytest.mark.parametrize("clip", [None, 0.5])
def test_salun_leaves_every_bit_outside_its_mask(make_context, clip):
    context = make_context("salun")
    settings = salun.Settings(lr=0.1, epochs=2, weight_decay=0.1, momentum=0.9, clip=clip)
    made = read_state_dict(salun.unlearn(context, settings).checkpoint)
    model = context.data.task.open(context.base)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    parameters = trained_parameters(model)
    gradients = mean_gradient(lambda rows: row_losses(context.data, model, rows), parameters, context.data.forget)
    masks = salun.salience_mask(gradients, 0.5)
    base = read_state_dict(context.base)
    moved = inside = total = 0
    for name, mask in zip(names, masks, strict=True):
        assert torch.equal(made[name].view(torch.int32)[~mask], base[name].view(torch.int32)[~mask])
        moved += int((made[name] != base[name])[mask].sum())
        inside, total = inside + int(mask.sum()), total + mask.numel()
    assert inside == (total + 1) // 2 and moved > 0.95 * inside


def test_boundary_expanding_is_scored_without_its_output(make_context):
    module = registry.load("methods", "boundary-expanding")
    context = make_context("boundary-expanding")
    outcome = module.unlearn(context, module.Settings(lr=1e-3))
    state = read_state_dict(outcome.checkpoint)
    assert state["11.weight"].shape == (10, 64) and state["11.bias"].shape == (10,)
    images, _ = context.data.task.batch(context.data.forget, "cpu")
    model = context.data.task.open(outcome.checkpoint)
    logits = context.data.task.classifier.logits(model, context.data.task.classifier.prepare(images))
    assert logits.shape[1] == 10 and (logits.argmax(1) != 3).float().mean() > 0.9


def test_sisa_never_sees_a_forget_row_and_keeps_untouched_shards(make_context, seed_run):
    context = make_context("sisa")
    settings = sisa.Settings(shards=3, slices=2, train=SHORT)
    outcome = sisa.unlearn(context, settings)
    everything = torch.cat([context.data.retain, context.data.forget]).sort().values
    assert outcome.facts["repeated_slices"] == outcome.facts["all_slices"] == 6  # a class is in every slice
    model = context.data.task.open(outcome.checkpoint)
    assert len(model.shards) == 3

    # One forget row touches the second slice of one shard: the same weights elsewhere, and only one slice to repeat.
    from dataclasses import replace

    from negmerge.seeding import derive_seed

    parts = sisa.deal(everything, 3, 2, derive_seed(context.data.seed, "shards"))
    assert torch.equal(torch.cat([part for shard in parts for part in shard]).sort().values, everything)
    row = parts[1][1][:1]
    data = replace(context.data, forget=row, retain=everything[everything != row])
    small = replace(make_context("sisa", "small"), data=data)
    one = sisa.unlearn(small, settings)
    none = replace(make_context("sisa", "none"), data=replace(data, forget=row[:0], retain=everything))
    untouched = sisa.unlearn(none, settings)
    assert one.facts["repeated_slices"] == 1 and untouched.facts["repeated_slices"] == 0
    assert untouched.seconds == {"training": 0.0} and untouched.facts["kept_seconds"] > one.facts["kept_seconds"] / 2
    ours, theirs = read_state_dict(one.checkpoint), read_state_dict(untouched.checkpoint)
    same = {key.split(".")[1]: True for key in ours}
    for key in ours:
        same[key.split(".")[1]] &= torch.equal(ours[key], theirs[key])
    assert same == {"0": True, "1": False, "2": True}


def test_an_ensemble_answers_with_the_mean_of_its_probabilities(make_context):
    context = make_context("sisa")
    outcome = sisa.unlearn(context, sisa.Settings(shards=2, slices=1, train=SHORT))
    classifier = context.data.task.classifier
    images, _ = context.data.task.batch(context.data.retain[:20], "cpu")
    model = context.data.task.open(outcome.checkpoint).eval()
    batch = classifier.prepare(images)
    with torch.no_grad():
        mean = torch.stack([shard(batch).softmax(1) for shard in model.shards]).mean(0)
        torch.testing.assert_close(classifier.logits(model, batch).softmax(1), mean)
