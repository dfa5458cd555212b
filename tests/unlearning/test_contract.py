"""The contract of every registered method that trains or selects."""

import json

import pytest
import torch
from pydantic import ValidationError

from contexts import context_maker
from negmerge import registry
from negmerge.checkpoints import read_state_dict
from negmerge.experiment.contexts import facts_of
from negmerge.experiment.methods import check_settings, describe, needs_of
from negmerge.selection.negated_model import apply_vector
from negmerge.tasks.task import Layers, Likelihood, Refuses
from negmerge.training import TrainSettings
from negmerge.training.progress import Progress
from negmerge.unlearning.method import method_of
from negmerge.unlearning.methods import influence
from negmerge.unlearning.search import search_ranges

NAMES = registry.names("methods", "negmerge.unlearning.methods")
# Methods that ask a task for what images do not have are run where texts are.
OF_LANGUAGE = {Likelihood, Refuses, Layers}
OF_IMAGES = [name for name in NAMES if not OF_LANGUAGE & set(method_of(name).REQUIRES)]
SLOW = ("contrast", "two-step")  # they train a further pool
RUN = [pytest.param(name, marks=pytest.mark.heavy(20)) if name in SLOW else name for name in OF_IMAGES]
NEEDS = {"pool", "forget", "retain", "validation", "reference"}
FROM_SCRATCH = TrainSettings(epochs=3, lr=0.01, batch_size=64)
SHORT = {
    "epochs": 3, "batch_size": 64, "samples": 40, "shards": 2, "slices": 2, "train": FROM_SCRATCH,
    "evaluations": 3, "steps": 5, "members": 1, "repeats": 1,
}  # fmt: skip


def short_settings(module):
    """The method's defaults, for a training of seconds."""
    return module.Settings(**{key: value for key, value in SHORT.items() if key in module.Settings.model_fields})


def run(name, context):
    module = registry.load("methods", name)
    return module.unlearn(context, short_settings(module))


@pytest.fixture(scope="module")
def finished(seed_run, tmp_path_factory):
    """A function that gives the context and the outcome of a method, and the epochs it trained; run once, only read."""
    made = {}

    def run_once(name):
        if name not in made:
            context = context_maker(seed_run, tmp_path_factory.mktemp(name))(name)
            saved = []
            with pytest.MonkeyPatch.context() as patch:
                save = Progress.save
                patch.setattr(Progress, "save", lambda *given: saved.append(given[2].number) or save(*given))
                made[name] = context, run(name, context), saved
        return made[name]

    return run_once


def weights(outcome, context):
    if outcome.checkpoint is not None:
        return read_state_dict(outcome.checkpoint)
    return apply_vector(context.base, outcome.vector, outcome.selection.alpha)


def test_the_methods_are_there():
    assert set(NAMES) >= {
        "best-single", "boundary-expanding", "boundary-shrink", "fine-tune", "gradient-ascent", "greedy", "influence",
        "l1-sparse", "original", "random-labels", "retrain", "salun", "sisa",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_what_it_is(name):
    module = registry.load("methods", name)
    assert module.KIND in ("select", "train")
    assert set(module.NEEDS) <= NEEDS and (module.NEEDS or name == "original")
    assert "\n" not in module.SUMMARY and len(module.SUMMARY) < 120
    assert ("arXiv" in module.REFERENCE or module.REFERENCE == "a control") and "\n" not in module.REFERENCE
    assert all(field.description for field in module.Settings.model_fields.values())
    assert module.unlearn.__doc__.count("\n") > 2 or name == "original"
    assert describe(name).kind == module.KIND and set(needs_of(name, {})) <= set(module.NEEDS)
    with pytest.raises(ValidationError):
        module.Settings(no_such_setting=1)


@pytest.mark.parametrize("name", NAMES)
def test_the_ranges_of_a_search_are_valid_settings(name):
    check_settings(name, {})
    for key, values in search_ranges(method_of(name), {}).items():
        assert len(values) > 1 and values == sorted(values)
        check_settings(name, {key: values})


@pytest.mark.parametrize("name", RUN)
def test_a_method_makes_a_model_from_its_seed_alone(name, finished, make_context):
    context, outcome, _ = finished(name)
    before = context.base.read_bytes()
    again = weights(run(name, make_context(name)), context)
    assert context.base.read_bytes() == before
    assert (outcome.seconds or name == "original") and all(seconds >= 0 for seconds in outcome.seconds.values())
    json.dumps(facts_of(outcome))
    made = weights(outcome, context)
    assert all(value.isfinite().all() for value in made.values() if value.is_floating_point())
    scores = context.judge(outcome.checkpoint) if outcome.checkpoint else outcome.selection.scores
    assert 0 <= scores["forget"] <= 100 and 0 <= scores["retain"] <= 100
    base = read_state_dict(context.base)
    if name != "sisa":  # an ensemble has the tensors of each of its models
        assert {k: (v.shape, v.dtype) for k, v in made.items()} == {k: (v.shape, v.dtype) for k, v in base.items()}
        assert all(torch.equal(made[key], base[key]) for key in base) == (name == "original")
    assert all(torch.equal(made[key], again[key]) for key in made)


@pytest.mark.parametrize("name", RUN)
def test_a_finished_method_is_read_back(name, finished, monkeypatch):
    context, outcome, _ = finished(name)

    def never(*_, **__):
        raise AssertionError("trained, judged or merged again")

    monkeypatch.setattr("negmerge.training.loop.fit", never)
    monkeypatch.setattr("negmerge.training.fitting.fit", never)
    monkeypatch.setattr("negmerge.unlearning.methods.influence.newton_step", never)
    monkeypatch.setattr("negmerge.merging.engine.merge_vector", never)
    monkeypatch.setattr("negmerge.tasks.image_classification.task.observe_parts", never)
    assert facts_of(run(name, context)) == facts_of(outcome)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize(
    "name",
    [n for n in OF_IMAGES if "epochs" in registry.load("methods", n).Settings.model_fields] + ["retrain", "sisa"],
)
def test_an_interrupted_training_goes_on_after_its_last_epoch(name, finished, make_context, monkeypatch):
    whole_context, outcome, epochs = finished(name)
    whole = weights(outcome, whole_context)
    save, saved, stop_after = Progress.save, [], 2

    def count(progress, model, epoch):
        save(progress, model, epoch)
        saved.append(epoch.number)
        if len(saved) == stop_after:
            raise StoppedError

    monkeypatch.setattr(Progress, "save", count)
    context = make_context(name)
    with pytest.raises(StoppedError):
        run(name, context)
    assert list(context.directory.parent.rglob("last-epoch.pt"))
    made = weights(run(name, context), context)
    assert saved == epochs  # none was trained twice
    assert not list(context.directory.parent.rglob("last-epoch.pt"))
    assert all(torch.equal(value, made[key]) for key, value in whole.items())


def test_influence_starts_anew_and_ends_the_same(finished, make_context, monkeypatch):
    context, outcome, _ = finished("influence")
    whole = weights(outcome, context)
    write, written = influence.write_weights, []

    def stop_first(checkpoint, model):
        written.append(checkpoint)
        if len(written) == 1:
            raise StoppedError
        write(checkpoint, model)

    monkeypatch.setattr(influence, "write_weights", stop_first)
    context = make_context("influence", "broken")
    with pytest.raises(StoppedError):
        run("influence", context)
    made = weights(run("influence", context), context)
    assert len(written) == 2 and all(torch.equal(value, made[key]) for key, value in whole.items())
