"""TOFU from a folder: authors as groups, other answers to some questions, truth ratios and model utility's parts."""

import json

import pytest
import torch
from tiny_language import save

from negmerge.errors import InputError
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.causal_lm.sources import tofu
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig

WRONG = [f"Wrong {i}." for i in range(5)]


def write(folder):
    """A folder in TOFU's format: 200 authors, other answers to four questions, three facts of either kind."""
    folder.mkdir()
    full = [{"question": f"Q{a} {i}?", "answer": f"A{a} {i}."} for a in range(200) for i in range(20)]
    other = [{**row, "paraphrased_answer": "So " + row["answer"], "perturbed_answer": WRONG} for row in full]
    facts = [{"question": f"F{i}?", "answer": "Yes", "perturbed_answer": ["No", "Ha", "Hm"]} for i in range(3)]
    for name, rows in (
        ("full", full),
        ("forget10_perturbed", other[3600:3602]),
        ("retain_perturbed", other[:2]),
        ("real_authors_perturbed", facts),
        ("world_facts_perturbed", facts),
    ):
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_authors_are_groups_and_other_answers_belong_to_their_questions(tmp_path):
    folder = write(tmp_path / "tofu")
    found = tofu.load(tofu.Settings(path=str(folder), authors=(178, 182), unseen=(0, 1)))
    assert found.train.classes == ("author 178", "author 179", "author 180", "author 181", "author 0")
    assert len(found.train) == 80 and len(found.test) == 20 and found.test.group_of.unique().tolist() == [4]
    assert [found.train.answers[a.row] for a in found.train.others if a.kind == "paraphrased"] == ["A180 0.", "A180 1."]
    assert len(found.test.others) == 12 and len(found.further["world_facts"]) == 3
    assert set(tofu.files(tofu.Settings(path=str(folder)))) == set(folder.iterdir())
    for settings, words in (
        ({"authors": (0, 10), "unseen": (9, 12)}, "authors and unseen overlap"),
        ({"authors": (0, 201)}, r"data.authors: give \[start, stop\] of 0 to 200"),
    ):
        with pytest.raises(InputError, match=words):
            tofu.load(tofu.Settings(path=str(folder), **settings))
    (folder / "full.json").unlink()
    with pytest.raises(InputError, match=r"has no full.json; give the folder of TOFU's files"):
        tofu.load(tofu.Settings(path=str(folder)))


def test_truth_ratios_are_those_of_single_answers(tmp_path):
    save(tmp_path / "model")
    data = DataConfig(
        source="tofu", path=str(write(tmp_path / "tofu")), authors=[179, 181], unseen=[0, 1],
        forget={"groups": ["author 180"]},
    )  # fmt: skip
    model = ModelConfig(family="hf", path=str(tmp_path / "model"))
    loaded = preparing.load_data(data, model)
    task = preparing.make_task(data, model, Compute(), loaded.tables, loaded.described)
    parts = task.further_parts()
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "real_authors": [60, 61, 62], "world_facts": [63, 64, 65]
    }  # fmt: skip
    net = task.start(0).eval()
    row = 20  # the first question about author 180
    seen = task.observe(net, {"forget": torch.tensor([row, row + 5])}, {"forget": ["truth_ratio", "options"]})["forget"]

    def loss(text):
        ids = torch.tensor(task.model.prompt("Q180 0?") + task.model.answer(text, "Q180 0?") + task.model.end)
        start = len(task.model.prompt("Q180 0?"))
        logs = net(input_ids=ids[None]).logits[0].double().log_softmax(-1).detach()
        return -float(torch.stack([logs[i - 1, ids[i]] for i in range(start, len(ids))]).mean())

    losses = torch.tensor([loss(text) for text in WRONG], dtype=torch.float64)
    right, own = loss("So A180 0."), loss("A180 0.")
    ratio = torch.exp(-losses.mean()) / torch.tensor(-right, dtype=torch.float64).exp()
    torch.testing.assert_close(seen["truth_ratio"][0], ratio, rtol=1e-4, atol=0)
    p = torch.tensor(-own, dtype=torch.float64).exp()
    torch.testing.assert_close(seen["options"][0], p / (p + (-losses).exp().sum()), rtol=1e-4, atol=0)
    assert seen["truth_ratio"][1].isnan() and seen["options"][1].isnan()
    names = {score.name for score in task.scores}
    assert {"forget_truth", "retain_truth", "real_authors", "world_facts_truth"} <= names


def test_the_real_files_are_read(shared):
    folder = shared / "data" / "tofu"
    if not folder.is_dir():
        pytest.skip(f"needs TOFU's files in {folder}")
    found = tofu.load(tofu.Settings(path=str(folder), authors=(0, 190), unseen=(190, 200)))
    assert len(found.train) == 3800 and len(found.further["real_authors"]) == 100
    with_others = {answer.row for answer in found.train.others}
    assert len(with_others) == 400 + 200  # of the first twenty authors, and of those that forget10 has of these
