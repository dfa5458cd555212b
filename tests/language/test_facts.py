"""A tiny language model learns facts and forgets some: the run, and every competitor."""

import pytest
import torch

from negmerge import registry
from negmerge.checkpoints import read_state_dict

pytestmark = pytest.mark.heavy(30)
# Settings under which a method shows what it is for, then bounds in percent: forget at most, retain at least.
EXPECTED = [
    ("gradient-ascent", {"optimizer": "adamw", "lr": 5e-4, "epochs": 5, "batch_size": 4}, 70, 45),
    ("fine-tune", {"optimizer": "adamw", "lr": 1e-3, "epochs": 10, "batch_size": 8}, 89, 85),
    ("grad-diff", {"lr": 1e-3, "epochs": 8, "batch_size": 4}, 20, 45),
    ("npo", {"lr": 1e-3, "epochs": 8, "batch_size": 4, "retain_weight": 10.0}, 40, 60),
    ("simnpo", {"lr": 1e-3, "epochs": 8, "batch_size": 4}, 55, 70),
    ("idk-dpo", {"lr": 1e-3, "epochs": 8, "batch_size": 4}, 75, 65),
    ("rmu", {"lr": 3e-3, "epochs": 15, "batch_size": 4, "layer": 1, "steering": 1.0, "retain_weight": 4.0}, 60, 65),
    ("ssd", {"threshold": 2.0}, 75, 65),
]


def test_a_run_forgets_what_it_was_asked_to(finished):
    _, results, place = finished
    base, reference, row = results["base"], results["reference"], results["methods"]["uniform"]
    assert base["forget"] > 70 and base["retain"] > 70 and base["forget_extraction"] > 80
    assert reference["forget"] < 40 < 70 < reference["retain"]
    assert row["forget"] < base["forget"] - 10 and row["retain"] >= 0.9 * base["retain"]
    assert results["task"]["noun"] == "question" and results["task"]["forget_classes"] == ["author 1"]
    named = dict(zip(results["task"]["classes"], base["per_class"], strict=True))
    kept = [named[f"author {i}"] for i in (0, 2, 3)]
    assert results["task"]["by_group"] == ["retain", "forget"] and min(kept) <= base["retain"] <= max(kept)
    assert named["author 1"] == pytest.approx(base["forget"])
    page = (place / "report.html").read_text()
    assert "Each line is a group" in page and "the mean probability of the right answers to its questions" in page
    assert "Forget answers’ probability" in page and "What the models answer" in page
    rows = results["said"]["rows"]
    assert [one["part"] for one in rows] == ["forget"] * 3 + ["retain"] * 3
    assert all(one["before"] == one["right"] and one["right"] in page for one in rows)
    assert not any(one["reference"] == one["right"] for one in rows[:3])


@pytest.mark.parametrize(("name", "settings", "forget", "retain"), EXPECTED)
def test_every_competitor_moves_the_right_way(name, settings, forget, retain, make_context):
    context = make_context(name)
    module = registry.load("methods", name)
    outcome = module.unlearn(context, module.Settings(**settings))
    scores, base = context.judge(outcome.checkpoint), context.judge(context.base)
    assert scores["forget"] <= forget < base["forget"]
    assert scores["retain"] >= retain
    again = make_context(name, "b")
    made = module.unlearn(again, module.Settings(**settings)).checkpoint
    first, second = read_state_dict(outcome.checkpoint), read_state_dict(made)
    assert all(torch.equal(first[key], second[key]) for key in first)
