"""What is told group by group: a group of which nothing is kept is a forgotten one."""

import pytest
import torch
from tiny_language import config_of, facts, save, write

from negmerge.checkpoints import write_state_dict
from negmerge.evidence.subject import Subject
from negmerge.evidence.tests.membership import Settings, against_unseen
from negmerge.experiment.config import check_config
from negmerge.experiment.measure import Bench, groups_without_retain
from negmerge.experiment.prepare import load_unwritten
from negmerge.report.remaining import changes_of, lost
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig


@pytest.fixture
def listed(tmp_path):
    """A task and its parts: the rows of author 1 and two of author 2 are listed one by one."""
    save(tmp_path / "model")
    rows = facts(24)
    gone = [row for i, row in enumerate(rows) if row["author"] == "author 1" or i in (2, 6)]
    data = DataConfig(
        source="table", path=[str(write(tmp_path / "kept.jsonl", rows))], forget={"where": {"requested": [True]}},
        requested=str(write(tmp_path / "gone.jsonl", gone)),
    )  # fmt: skip
    model = ModelConfig(family="hf", path=str(tmp_path / "model"))
    loaded = preparing.load_data(data, model)
    task = preparing.make_task(data, model, Compute(), loaded.tables, loaded.described)
    write_state_dict(tmp_path / "model.safetensors", task.trained(task.template()))
    return task, loaded.split.parts(len(loaded.source.train)), tmp_path / "model.safetensors"


def test_a_group_that_is_forgotten_row_by_row_is_not_one_to_keep(listed):
    task, parts, checkpoint = listed
    assert groups_without_retain(task, parts) == ["author 1"]
    scores = Bench(task, parts, [], 0, "cpu").full_scores(checkpoint)
    before = dict(zip(task.rows().groups, scores["per_class"], strict=True))
    after = {name: value - (50 if name == "author 1" else 0.2) for name, value in before.items()}
    about = {"classes": list(before), "forget_classes": [], "by_group": ["retain", "forget"], "measure": "probability"}
    row = {"per_class": list(after.values())}
    results = {
        "task": {**about, "noun": "question", "groups_without_retain": groups_without_retain(task, parts)},
        "base": {"per_class": list(before.values())},
        "methods": {"uniform": row},
    }
    assert [one.name for one in changes_of(results, row) if one.forgotten] == ["author 1"]
    assert "author 1" not in " ".join(lost(results, row)) and "Of 3 groups to keep" in lost(results, row)[-1]


def test_a_group_whose_kept_rows_are_not_in_the_sample_has_no_number_of_forget_rows(listed):
    task, parts, checkpoint = listed
    numbers = torch.tensor([task.rows().groups.index("author 2")])
    few = {**parts, "retain": parts["retain"][torch.isin(task.rows().group_of[parts["retain"]], numbers)][:1]}
    assert Bench(task, few, [], 0, "cpu").full_scores(checkpoint)["per_class"][int(numbers)] is not None
    bench = Bench(task, parts, [], 0, "cpu", most=1)
    seen = bench._rows("retain")
    found = bench.full_scores(checkpoint)["per_class"]
    kept = set(task.rows().group_of[parts["retain"]].tolist()) - set(task.rows().group_of[seen].tolist())
    assert kept and all(found[number] is None for number in kept)


def test_rows_of_other_authors_are_unseen_where_the_forgotten_author_has_none(listed):
    task, parts, checkpoint = listed
    subject = Subject(task, parts, checkpoint, None, checkpoint, 0, "rows")
    assert len(subject.forgotten_groups()) == 1 and not len(parts["test_forget"])
    found = against_unseen(subject, Settings())
    assert found.facts["unseen"] == (len(parts["test"]) + 1) // 2 and "No attack" not in found.text


def test_rows_that_are_held_out_of_a_given_model_are_not_unseen(tmp_path):
    save(tmp_path / "model")
    write(tmp_path / "facts.jsonl", facts(24))
    write(tmp_path / "unseen.jsonl", facts(8, seed=1))
    given = config_of(tmp_path, base={"pretrained": True}, reference=None, evaluation={})
    drawn = {key: value for key, value in given["data"].items() if key != "test"}
    for config, known in (
        (given, False), ({**given, "data": drawn}, True),
        ({**config_of(tmp_path), "data": drawn}, False),  # the base is trained here, without them
    ):  # fmt: skip
        assert load_unwritten(check_config(config)).about.may_know is known
