"""The protocol of a task: scores from columns, capabilities, and what a plug-in's file must hold."""

import pickle
from dataclasses import dataclass

import pytest
import torch

from negmerge import registry
from negmerge.errors import InputError
from negmerge.scores import HOLDOUT, Draw, Need, columns_needed
from negmerge.tasks.columns import COLUMNS
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.family import Family, family_of
from negmerge.tasks.image_classification.sources import digits
from negmerge.tasks.image_classification.store import tables_of
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.tasks.task import CAPABILITIES, Answers, FurtherParts, Layers, Likelihood, Refuses, Task, need
from negmerge.tasks.zero_shot.task import ZeroShot

PARTS = {"retain", "forget", "validation", "validation_forget", "test", "test_forget"}


@pytest.fixture(scope="module")
def task():
    source = digits.load(digits.Settings())
    return ImageClassification(Classifier("small-cnn", {"width": 4}, 10, (1, 8, 8)), tables_of(source))


def test_the_scores_of_a_task_are_made_of_its_columns(task):
    names = [score.name for score in task.scores]
    assert len(set(names)) == len(names) and names[0] == "forget"
    for score in task.scores:
        assert {need.part for need in score.needs} <= PARTS and {need.column for need in score.needs} <= set(COLUMNS)
        assert score.descriptor()["unit"] == ("nat" if score.name == "retain_loss" else "%") and score.low == 0.0
        assert score.high == (None if score.name == "retain_loss" else 100.0)
    assert [score.name for score in task.scores if score.in_gap] == ["forget", "retain", "test", "membership"]
    assert {score.chance for score in task.scores if score.unit == "%" and not score.attack} == {10.0}
    assert "image" in next(score.about for score in task.scores if score.name == "forget")


def test_a_score_of_no_rows_is_none(task):
    forget, held_out = (next(s for s in task.scores if s.name == name) for name in ("forget", "validation_forget"))
    observed = {"model": {"forget": {"correct": torch.tensor([True, False])}, "validation_forget": {"correct": ()}}}
    assert forget.of(observed, Draw()) == 50.0 and held_out.of(observed) is None


def test_columns_are_asked_for_by_role_and_part(task):
    wanted = [score for score in task.scores if score.in_gap]
    needed = columns_needed(wanted)
    assert {part: sorted(columns) for part, columns in needed.items()} == {
        part: ["confidence", "correct"] for part in ("forget", "retain", "test")
    }
    assert columns_needed([HOLDOUT], "base") == {"validation": ["correct", "loss"]}
    assert Need("base", "validation", "loss") in HOLDOUT.needs and columns_needed(wanted, "base") == {}


def test_rows_and_batches_are_the_tasks_own_affair(task):
    rows = torch.arange(40)
    model = task.start(0)
    settings = type("Settings", (), {"batch_size": 16, "augment": "none", "label_smoothing": 0.0})()
    batches = task.batches(rows, settings, 3, "cpu")
    assert batches.steps == 3 and sum(len(task.labels(batch)) for batch in batches(0)) == 40
    batch = task.batch(rows, "cpu")
    assert task.loss(model, batch).item() == pytest.approx(task.losses(model, batch).mean().item(), rel=1e-5)
    seen = task.observe(model, {"some": rows, "few": rows[:3]}, {"some": ["loss"], "few": ["correct", "group"]})
    torch.testing.assert_close(seen["some"]["loss"].float(), task.losses(model.eval(), batch).detach())
    assert seen["few"]["group"].tolist() == task.rows().group_of[:3].tolist() and list(seen["few"]) == [
        "correct",
        "group",
    ]
    assert set(task.trained(model)) == set(model.state_dict())


def test_a_task_travels_to_another_process(task):
    again = pickle.loads(pickle.dumps(task))
    assert again.classifier == task.classifier and again.rows().fingerprint() == task.rows().fingerprint()


LANGUAGE = {Likelihood, Refuses, Layers, Answers, FurtherParts}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_capability_that_a_task_lacks_is_named(task, capability):
    @dataclass(frozen=True)
    class Bare(Task):
        NAME = "bare"
        NOUN = "row"

    if capability not in LANGUAGE:
        assert need(task, capability, "somebody") is task
    with pytest.raises(InputError, match=f"salun needs {CAPABILITIES[capability]}, which the task bare does not have"):
        need(Bare(), capability, "salun")


def test_both_tasks_have_the_capabilities_of_classification(task):
    for one in (task, ZeroShot(task.classifier, task.tables)):
        assert {capability for capability in CAPABILITIES if not isinstance(one, capability)} == LANGUAGE


def test_a_file_that_lacks_something_is_named(tmp_path, monkeypatch):
    (tmp_path / "half_a_family.py").write_text("SUMMARY = 'half'\nSettings = dict\n\n\ndef build(*_):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_locations", lambda kind: {"half": "half_a_family"})
    with pytest.raises(InputError, match=r"family 'half' \(.*half_a_family.py\) lacks prepare$"):
        registry.read("families", "half", Family)


def test_what_a_family_leaves_out_has_a_default():
    plain, clip = family_of("small-cnn"), family_of("clip")
    assert plain.pretrained is None and plain.HEAD == "" and plain.image_form(None) == {} == plain.model_files(None)
    assert plain.prepare_head is None and clip.prepare_head is not None and clip.pinned is not None
