"""The benchmark of what decides the gap, on a small network and digits."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

SMALL = """
name: small
threads: 1
workers: 1
model: {family: cifar-resnet, depth: 20}
data: {source: digits, train_rows: [0, 400], validation: {fraction: 0.2}, forget: {fraction: 0.2}}
base: {train: {optimizer: sgd, lr: 0.1, epochs: 2, batch_size: 64}}
reference: {train: base}
pool: {grid: {lr: [0.1]}}
methods: [consensus]
selection: {objective: match-reference}
"""


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import what_decides

    (tmp_path / "small.yaml").write_text(SMALL)
    monkeypatch.setattr(what_decides, "CONFIG", tmp_path / "small.yaml")
    monkeypatch.setattr(what_decides, "LONG", [1, 2])
    return what_decides


@pytest.mark.heavy
def test_recipes_share_their_pool_and_stand_in_one_table(small, monkeypatch, tmp_path, capsys):
    page, shared = tmp_path / "page.md", "no-smoothing-lr-0.1"
    page.write_text("before\n<!-- tables -->\n<!-- end -->\nafter\n")
    arguments = ["what_decides.py", str(tmp_path / "runs"), "--only", "match-holdout", shared, "--write", str(page)]
    monkeypatch.setattr("sys.argv", [*arguments, "--set", "selection={objective: match-reference, max_alpha: 1}"])
    small.main()
    shown = page.read_text()
    assert shown.startswith("before\n<!-- tables -->\n| recipe |") and shown.endswith("<!-- end -->\nafter\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {len(small.HEADER)}
    assert [row[0] for row in rows[2:] if row[0]] == ["match-holdout", shared]
    assert len(rows) == 2 + len(small.METHODS) + len(small.MORE[:6])
    held = rows[2]
    assert held[3] == "consensus" and "(α" in held[-1] and held[-2] == "–"
    runs = [tmp_path / "runs" / name for name in (shared, "match-holdout")]
    for member in (runs[0] / "private" / "pool").glob("*/model.safetensors"):
        same = runs[1] / "private" / "pool" / member.parent.name / "model.safetensors"
        assert same.read_bytes() == member.read_bytes()
    configs = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    assert configs[0]["pool"] == configs[1]["pool"] and configs[1]["selection"]["objective"] == "match-holdout"
    results = json.loads((runs[0] / "results.json").read_text())
    assert rows[6][4] == f"{results['methods']['consensus']['retain']:.1f}"
    shutil.rmtree(runs[1] / "methods")
    small.main()  # what is done is read back
    assert page.read_text() == shown


def test_recipes_change_the_config_in_one_thing(small):
    center, augmented = (yaml.safe_load("{" + ", ".join(
        f'"{k}": {v}' for k, v in (change.split("=", 1) for change in small.changes(small.RECIPES[name]))) + "}")
        for name in ("center", "augmented"))  # fmt: skip
    assert augmented["pool"]["train"].pop("augment") == "crop+flip"
    assert augmented["pool"] == center["pool"] and augmented["seeds"] == center["seeds"] == [0]
    assert center["methods"][: len(small.PLAIN)] == small.PLAIN
