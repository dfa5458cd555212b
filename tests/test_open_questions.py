"""The study of the paper's open questions, on a few digits: every question, its table, and what is not made twice."""

import json
import sys
from pathlib import Path

import pytest
import torch

SMALL = """
name: small
threads: 1
workers: 1
model: {family: small-cnn, width: 8}
data: {source: digits, train_rows: [0, 300], validation: {rows: [300, 500]}, forget: {fraction: 0.1}}
base: {train: {optimizer: sgd, lr: 0.1, epochs: 3, batch_size: 64}}
reference: {train: base}
pool: {train: {optimizer: sgd, batch_size: 16}, grid: {lr: [0.01, 0.05], epochs: [2, 3], weight_decay: [0.0, 1.0e-4]}}
buffers: {recalibrate: forget, rows: 30}
methods: [uniform]
selection: {objective: match-reference, max_alpha: 1, step: 0.25, retain_rows: 100}
evaluation: {membership: [svc-confidence], most: 100}
"""
MODULES = ("open_questions", "pool_of_run", "training", "bad_members", "other_base")


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    (tmp_path / "small.yaml").write_text(SMALL)
    yield tmp_path
    for name in [name for name in sys.modules if name in MODULES or name.partition(".")[0] == "questions"]:
        sys.modules.pop(name)


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_spread_and_tables(folder):
    from questions.tables import Spread, markdown

    assert str(Spread.of([1.0, 3.0])) == "2.0 ± 1.0" and str(Spread.of([2.0])) == "2.0"
    assert cells(markdown(["a", "b"], [["x", 1.5]])) == [["a", "b"], ["---", "---:"], ["x", "1.5"]]


@pytest.mark.heavy(60)
def test_every_question_is_answered_once(folder, monkeypatch, capsys):
    import open_questions
    from questions import addition, confirmed, few, forget_size, hostile, pool_size, signs, threshold

    monkeypatch.setattr(pool_size, "SIZES", (2, 8))
    monkeypatch.setattr(pool_size, "ORDERS", 2)
    monkeypatch.setattr(few, "SIZES", (2, 8))
    monkeypatch.setattr(threshold, "THRESHOLDS", (0.5, 1.0))
    monkeypatch.setattr(threshold, "ROUNDED", (0.75,))
    monkeypatch.setattr(hostile, "SIZE", 4)
    monkeypatch.setattr(hostile, "MERGES", {key: hostile.MERGES[key] for key in ("consensus", "median")})
    monkeypatch.setattr(forget_size, "SHARES", (0.05, 0.0))
    monkeypatch.setattr(forget_size, "GRID", {"lr": [0.05], "epochs": [2, 3]})
    monkeypatch.setattr(addition, "RATES", (0.05,))
    monkeypatch.setattr(addition, "ALPHAS", (0.5, 1.0))
    monkeypatch.setattr(signs, "FRESH", 1)
    monkeypatch.setattr(confirmed, "MERGES", {name: confirmed.MERGES[name] for name in (confirmed.CHOSEN, "consensus")})
    page, numbers = folder / "page.md", folder / "numbers.json"
    page.write_text("before\n<!-- tables -->\n<!-- end -->\nafter\n")
    words = [str(folder / "small.yaml"), str(folder / "runs"), "--draws", "1", "2"]
    open_questions.main([*words, "--write", str(page), "--json", str(numbers)])
    text, found = page.read_text(), json.loads(numbers.read_text())
    for name, question in open_questions.QUESTIONS.items():
        assert f"### {question.TITLE}\n" in text and len(found[name]) == 2
    kept = {row["size"]: row["kept"] for row in found["N"][0] if row["merge"] == "consensus"}
    assert kept[8] < kept[2] < 1.0
    assert all(row["kept"] == 1.0 for row in found["N"][0] if row["merge"] == "uniform")
    assert [row["order"] for row in found["N"][0] if row["size"] == 8] == [0, 0, 0]
    gaps = {(row["size"], row["order"], row["merge"]): row["gap"] for row in found["N"][0]}
    few_rows = [row for row in found["few"][0] if row["strength"] is None]
    assert {row["kept"] for row in few_rows if row["merge"] == few.MEAN} == {1.0}
    assert kept[8] < min(row["kept"] for row in few_rows if row["size"] == 8) < 1.0  # three quarters of them, not all
    for row in (row for row in few_rows if row["size"] == 2):  # of two members three quarters are both
        assert row["gap"] == gaps[2, row["order"], {few.MEAN: "uniform", few.SIGNS: "consensus"}[row["merge"]]]
    flipped = [row for row in found["pool"][0] if row["bad"] == "sign-flipped" and row["merge"] == "consensus"]
    honest = [row for row in found["pool"][0] if row["pool"] == "grid" and row["merge"] == "consensus"]
    assert flipped[0]["kept"] < 0.5 * honest[0]["kept"] and "sign-flipped" in flipped[0]["named"]
    assert {row["rows"] for row in found["size"][0]} == {15, 1}
    assert found["addition"][0][0]["way"] == "base" and {"alpha", "all"} <= set(found["addition"][0][-1])
    bins, effects = found["signs"][0]["bins"], found["signs"][0]["effects"]
    assert bins["unanimous"]["fresh"] > bins["all"]["fresh"] > 50
    assert effects["mean, λ = 10"] < effects["mean, λ = 1"] < effects["mean"]
    nothing, chosen, consensus, again = found["confirmed"][0]
    assert chosen["kept"] == 1.0 > consensus["kept"] and nothing["merge"] == "doing nothing"
    assert again["merge"] == "a second Retrain" and again["gap"] > 0
    trained = sorted((folder / "runs").rglob("training.json"))
    stamps = [path.stat().st_mtime_ns for path in trained]
    open_questions.main([*words, "--write", str(page)])  # what is done is read back
    assert page.read_text() == text
    assert sorted((folder / "runs").rglob("training.json")) == trained
    assert [path.stat().st_mtime_ns for path in trained] == stamps


@pytest.mark.heavy(30)
def test_bad_members_are_judged_and_read_back(folder, monkeypatch):
    import bad_members

    monkeypatch.setattr(bad_members, "TRAINED", {"class": bad_members.digits_class})
    monkeypatch.setattr(bad_members, "RATES", (0.01, 0.03))
    monkeypatch.setattr(bad_members, "EPOCHS", (2, 4))
    monkeypatch.setattr(bad_members, "SIZES", (5,))
    monkeypatch.setattr(bad_members, "POOLS", 10)
    page = folder / "page.md"
    page.write_text("before\n<!-- tables -->\n<!-- end -->\nafter\n")
    for _ in range(2):
        bad_members.main([str(folder / "pools"), "--write", str(page)])
    header, _, row = cells(page.read_text())
    assert len(header) == len(row) and row[0] == "digits, a class" and row[1].endswith("of 10")
    named = dict(zip(header, row, strict=True))
    assert named["sign-flipped: named"] == named["noise: named"] == "10 of 10"
    file = folder / "pools" / "class.pt"
    _, honest, bad = torch.load(file, weights_only=True)
    assert len(honest) == 8 and all(bad[sort] for sort in ("untrained", "other rows", "diverged"))
