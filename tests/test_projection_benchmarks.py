"""The benchmarks of the projection, on a small network and digits."""

import json
import sys
from pathlib import Path

import pytest

SMALL = """
name: small
threads: 1
workers: 1
model: {family: small-cnn}
data: {source: digits, train_rows: [0, 600], validation: {fraction: 0.2}, forget: {classes: ["3"]}}
base: {train: {lr: 0.003, epochs: 8, batch_size: 64, schedule: one-cycle}}
pool: {train: {batch_size: 32}, grid: {lr: [1e-3], epochs: [4, 8]}}
projection: {strength: [10], samples: 100}
methods: [uniform, best-single, {name: fine-tune, lr: 0.001, epochs: 1}]
selection: {step: 0.25, max_alpha: 4}
evaluation: {membership: []}
"""


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    (tmp_path / "small.yaml").write_text(SMALL)
    yield tmp_path
    for name in ("class_forgetting", "projection", "training"):
        sys.modules.pop(name, None)


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


@pytest.mark.heavy(20)
def test_classes_are_measured_in_one_table_and_done_ones_read_back(folder, monkeypatch, capsys):
    import class_forgetting

    page, numbers = folder / "page.md", folder / "numbers.json"
    page.write_text("before\n<!-- tables -->\n<!-- end -->\nafter\n")
    words = [str(folder / "small.yaml"), str(folder / "runs"), "--classes", "3", "5", "--evaluated", "100"]
    monkeypatch.setattr("sys.argv", ["class_forgetting.py", *words, "--write", str(page), "--json", str(numbers)])
    class_forgetting.main()
    header, _, *rows = cells(page.read_text())
    assert [row[0] for row in rows] == [
        "uniform", "uniform projected", "best-single", "best-single projected", "fine-tune", "original"
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(header)}
    found = json.loads(numbers.read_text())
    assert list(found) == ["3", "5"]
    for one in found.values():
        for name, row in one["rows"].items():
            point = row["at"]["5"]
            assert point is None or point["known"] <= 5.0
            assert ("alpha" in (point or {})) == (point is not None and name != "fine-tune")
        assert one["rows"]["uniform projected"]["strength"] == 10.0
        assert one["rows"]["uniform"]["at"]["5"] is not None
    written = page.read_text()
    (folder / "runs" / "3" / "results.json").unlink()
    class_forgetting.main()  # what is measured is not run again
    assert page.read_text() == written
    assert not (folder / "runs" / "3" / "results.json").exists()


@pytest.mark.heavy(10)
def test_every_policy_for_statistics_has_its_line(folder, monkeypatch, capsys):
    import projection

    words = [str(folder / "small.yaml"), str(folder / "runs"), "--merges", "mean", "--evaluated", "100"]
    words += ["--strengths", "10", "--buffers", "keep", "negate", "recalibrate on retain rows", "--rows", "100"]
    monkeypatch.setattr("sys.argv", ["projection.py", *words])
    projection.main()
    rows = cells(capsys.readouterr().out)
    assert [row[:2] for row in rows if row[3] == "–"] == [
        ["moving", "keep"], ["moving", "negate"], ["moving", "recalibrate on retain rows"], ["frozen", "keep"]
    ]  # fmt: skip
    assert [row[4] for row in rows if row[1] == "negate" and row[3] == "10"] == ["keep"]
