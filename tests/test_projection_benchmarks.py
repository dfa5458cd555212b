"""The benchmarks of the projection, on a small network and digits."""

import json
import sys
import time
from pathlib import Path

import pytest

SMALL = """
name: small
threads: 1
workers: 1
model: {family: small-cnn}
data: {source: digits, train_rows: [0, 600], validation: {fraction: 0.2}, forget: {classes: ["3"]}}
base: {train: {lr: 0.003, epochs: 8, batch_size: 64, schedule: one-cycle}}
reference: {train: base}
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
    for name in ("class_forgetting", "cpu_minutes", "projection", "projection_strengths", "random_rows", "training"):
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
        "Retrain", "uniform", "uniform projected", "best-single", "best-single projected", "fine-tune", "original"
    ]  # fmt: skip
    assert {len(row) for row in rows} == {len(header)}
    found = json.loads(numbers.read_text())
    assert list(found) == ["3", "5"]
    for one in found.values():
        for name, row in one["rows"].items():
            point = row["at"]["5"]
            assert point is None or point["known"] <= 5.0
            assert ("alpha" in (point or {})) == (point is not None and name not in ("fine-tune", "Retrain"))
            assert row["cpu_seconds"] > 0
        assert one["rows"]["Retrain"]["chosen"]["known"] < 50 < one["base"]["known"]
        pool = one["rows"]["uniform"]["cpu_seconds"]
        assert one["rows"]["uniform projected"]["cpu_seconds"] > pool / 2  # the pool counts for each row that needs it
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


@pytest.mark.heavy(30)
def test_random_rows_have_a_line_for_each_merge_policy_and_strength(folder, monkeypatch, capsys):
    import random_rows

    config = folder / "random.yaml"
    config.write_text(SMALL.replace('{classes: ["3"]}', "{fraction: 0.1}").replace("projection:", "# projection:"))
    monkeypatch.setattr(random_rows, "CONFIG", config)
    page = folder / "page.md"
    page.write_text("<!-- tables -->\n<!-- end -->\n")
    words = [
        "random_rows.py",
        str(folder / "runs"),
        "--write",
        str(page),
        "--set",
        "selection.objective=match-reference",
    ]
    words += ["--set", "evaluation.membership=[svc-confidence]", "--set", "base.train.epochs=4"]
    rows = ["--rows", "mean:keep:none", "mean:forget:10", "--frozen-rows", "consensus:keep:none"]
    monkeypatch.setattr("sys.argv", [*words, *rows])
    random_rows.main()
    _, _, plain, projected, frozen, original, retrain = cells(page.read_text())
    assert frozen[:4] == ["frozen", "keep", "consensus", "–"]
    assert plain[:4] == ["moving", "keep", "mean", "–"]
    assert projected[:4] == ["moving", "recalibrate on forget rows", "mean", "10"]
    assert (original[0], retrain[0], retrain[4]) == ("original", "Retrain", "0.0")
    found = json.loads((folder / "runs" / "moving" / "results.json").read_text())
    base, reference = found["base"], found["reference"]
    gap = sum(abs(base[key] - reference[key]) for key in ("retain", "forget", "test", "membership")) / 4
    assert original[4] == f"{gap:.1f}"
    monkeypatch.setattr("sys.argv", [*words, "--rows", "mean:keep:ten"])
    with pytest.raises(SystemExit, match="ten in mean:keep:ten is neither none nor a number"):
        random_rows.main()


def test_cpu_time_is_counted_by_stage_and_nothing_twice(folder, monkeypatch):
    import cpu_minutes

    spent = iter(range(0, 1000, 10))
    monkeypatch.setattr(cpu_minutes, "_spent", lambda: float(next(spent)))
    file = folder / "cpu.json"
    cpu = cpu_minutes.CpuMinutes(file)
    started, done = "stage-started", "stage-done"
    events = [(started, "pool"), (done, "pool"), (started, "method uniform"), (started, "moments"), (done, "moments"),
              ("evaluated", ""), ("evaluated", ""), (done, "method uniform")]  # fmt: skip
    for kind, stage in events:
        cpu({"event": kind, "stage": stage})
    seconds = {"reporting": 30.0, "pool": 10.0, "method uniform": 30.0, "moments": 10.0}
    assert json.loads(file.read_text()) == {"seconds": seconds, "open": []}
    assert cpu.of_row("uniform", ["pool", "forget"], projected=False) == 40.0
    assert cpu.of_row("uniform", ["pool", "forget"], projected=True) == 50.0
    again = cpu_minutes.CpuMinutes(file)  # a run that goes on
    again({"event": started, "stage": "pool"})
    again({"event": done, "stage": "pool"})
    assert again.seconds["pool"] == 20.0
    again({"event": started, "stage": "moments"})  # and is killed here
    last = cpu_minutes.CpuMinutes(file)
    last({"event": started, "stage": "moments"})
    last({"event": done, "stage": "moments"})
    assert last.of_row("uniform", ["pool", "forget"], projected=True) is None
    assert last.of_row("uniform", ["pool", "forget"], projected=False) == 50.0
    assert cpu_minutes.CpuMinutes(file).of_stages("moments") is None


def test_cpu_time_is_that_of_the_process(folder):
    import cpu_minutes

    before = cpu_minutes._spent()
    time.sleep(0.05)
    assert cpu_minutes._spent() - before < 0.04


@pytest.mark.heavy(5)
def test_each_strength_has_its_cell_and_the_row_that_is_handed_over_is_named(folder, monkeypatch, capsys):
    import projection_strengths

    words = [str(folder / "small.yaml"), str(folder / "runs"), "--classes", "3", "--samples", "50", "--set"]
    monkeypatch.setattr("sys.argv", ["projection_strengths.py", *words, "reference=none"])
    projection_strengths.main()
    ((name, samples, plain, *strengths, shipped),) = cells(capsys.readouterr().out)
    assert (name, samples, len(strengths)) == ("3", "50", 6)
    found = json.loads((folder / "runs" / "3-50" / "results.json").read_text())["methods"]
    tried = found["uniform projected"]["projection"]["strengths"]
    left = [max(one["forget"], one["validation_forget"]) for one in tried]
    assert [float(cell.split(" / ")[0]) for cell in strengths] == [round(one) for one in left]
    row = found["uniform" if shipped.startswith("plain: ") else "uniform projected"]
    assert shipped.split(": ")[1] == f"{max(row['forget'], row['test_forget']):.0f} / {row['test']:.1f}"
    if int(plain.split(" / ")[0]) < min(left):
        assert shipped.startswith("plain: ")
