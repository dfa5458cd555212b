"""Capitals to forget and symbols to keep: the rows, multiple choice by hand, and the config on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_language import save

from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.pipeline import run
from negmerge.scores.language import share_chosen
from negmerge.tasks.causal_lm.columns import Answered, Tokens, columns_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rows(tmp_path):
    """The folder that the example writes."""
    subprocess.run([sys.executable, ROOT / "examples/language/capitals.py", tmp_path / "capitals"], check=True)
    return tmp_path / "capitals"


def answer(*logs):
    values = torch.tensor(logs, dtype=torch.float64)
    return Tokens(values, torch.ones(len(logs), dtype=torch.bool), values)


def test_thirty_capitals_and_sixteen_symbols_each_with_three_wrong_answers(rows):
    for name in ("facts.jsonl", "other-words.jsonl"):
        found = [json.loads(line) for line in (rows / name).read_text().splitlines()]
        kinds = [row["group"] for row in found]
        assert kinds == ["capitals"] * 30 + ["symbols"] * 16
        for row in found:
            kind = {one["answer"] for one in found if one["group"] == row["group"]}
            assert len(set(row["perturbed_answer"])) == 3 and set(row["perturbed_answer"]) < kind - {row["answer"]}


def test_the_right_answer_is_chosen_by_its_loss_without_the_end():
    wrong = {"perturbed": [answer(-2.0, -0.1), answer(-3.0, -0.1)]}
    right, end_costs = answer(-1.0, -0.1), answer(-1.0, -9.0)  # the last is the label of the end
    made = [Answered(own, others, 0, 1, 1) for own, others in ((right, wrong), (end_costs, wrong), (right, {}))]
    made.append(Answered(answer(-2.5, -0.1), wrong, 0, 1, 1))
    chosen = columns_of(made, ["chosen"])["chosen"]
    assert chosen.tolist()[:2] == [1.0, 1.0] and bool(chosen[2].isnan()) and chosen[3] == 0.0
    assert share_chosen(chosen) == pytest.approx(200 / 3) and share_chosen(chosen[2:3]) is None


@pytest.mark.heavy(30)
def test_the_config_runs_scaled_down(rows, tmp_path):
    raw = load_config(ROOT / "configs" / "capitals-smollm2.yaml").resolved()
    save(tmp_path / "model", chat=True)
    raw["model"]["path"] = str(tmp_path / "model")
    raw["data"] |= {"path": str(rows / "facts.jsonl"), "test": str(rows / "other-words.jsonl")}
    raw["workers"], raw["threads"], raw["device"] = 1, 1, "cpu"
    raw["pool"]["grid"] = {"lr": [3e-4, 1e-3], "epochs": [1]}
    raw["selection"] |= {"search": "grid", "step": 0.5}
    raw["methods"] = [{k: v for k, v in method.items() if v is not None} for method in raw["methods"]]
    raw["methods"][-1] |= {"lr": [1e-4], "epochs": 1}
    results = run(check_config(raw), tmp_path / "run")
    assert results["task"]["rows"]["test_forget"] == 30 and results["task"]["rows"]["test"] == 16
    assert len(results["methods"]) == 7 and results["reference"] is None  # three merges, each also projected, and NPO
    for row in (results["base"], *results["methods"].values()):
        assert all(0 <= row[name] <= 100 for name in ("forget_choice", "unseen_forget_choice", "retain_choice"))
    tables = json.loads((tmp_path / "run" / "private" / "data" / "tables.json").read_text())
    assert tables["ends"] == 0  # the sentence would go on behind a capital
    assert results["methods"]["importance"]["needs"] == ["pool", "forget", "retain"]
