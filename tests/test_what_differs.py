"""The study of what differs between merges, on small networks and digits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.tasks.image_classification.families import small_cnn

SMALL = """
name: small
threads: 1
workers: 1
model: {family: small-cnn, width: 4}
data: {source: digits, train_rows: [0, 400], validation: {fraction: 0.2}, forget: {fraction: 0.2}}
base: {train: {optimizer: sgd, lr: 0.1, epochs: 2, batch_size: 64}}
reference: {train: base}
pool: {grid: {lr: [0.05, 0.1], epochs: [2]}}
buffers: {recalibrate: forget, rows: 50}
methods: [original]
selection: {objective: match-reference, max_alpha: 2, step: 0.5}
"""
ROWS = {"merges": ["uniform", "consensus"], "learned": [{"name": "learned-coefficients", "steps": 3}]}


@pytest.fixture
def study(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import what_differs
    import what_differs_rows as rows

    (tmp_path / "small.yaml").write_text(SMALL)
    draws = [rows.Draw(f"d{i}", (f"data.seed={i}", f"seeds=[{i}]"), confirms=i == 2) for i in range(3)]
    draws[0] = replace(draws[0], folder="draw-0")
    monkeypatch.setattr(what_differs, "CONFIGS", tmp_path)
    setting = rows.Setting("small.yaml", tuple(draws), groups=ROWS, bound_steps=3, beside=("uniform", "consensus"))
    monkeypatch.setitem(rows.SETTINGS, "resnet20", setting)
    return what_differs


def call(study, monkeypatch, folder, *words):
    arguments = [str(folder), "--data", str(folder), *map(str, words)]
    monkeypatch.setattr("sys.argv", ["what_differs.py", *arguments])
    study.main()


def open_questions_pool(folder):
    """Train the pool of the first draw as the open questions do, and return when each member was written."""
    from questions.draws import Draw

    draw = Draw(folder.parent / "small.yaml", [], folder, 0)
    return {path: path.stat().st_mtime_ns for path in draw.members.values()}


@pytest.mark.heavy(60)
def test_stages_are_done_once_and_the_winner_is_confirmed_on_the_last_draw(study, monkeypatch, tmp_path, capsys):
    folder, page = tmp_path / "study", tmp_path / "page.md"
    page.write_text("before\n<!-- tables -->\n<!-- end -->\nafter\n")
    shared = open_questions_pool(folder)
    call(study, monkeypatch, folder, "--next")
    call(study, monkeypatch, folder, "--list")
    listed = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("done", "open"))]
    assert listed[0] == ["done", "originals-d0"] and {state for state, _ in listed[1:]} == {"open"}
    assert [name for _, name in listed][-2:] == ["bound-tensor-d1", "confirmed-d2"]
    call(study, monkeypatch, folder)
    files = {file: file.read_bytes() for file in (folder / "stages").iterdir()}
    assert {file.stem for file in files} == {name for _, name in listed}
    members = {file: file.stat().st_mtime_ns for file in folder.glob("*/private/pool/*/model.safetensors")}
    assert len(members) == 6 and shared.items() <= members.items()
    call(study, monkeypatch, folder)
    assert {file: file.read_bytes() for file in files} == files
    assert {file: file.stat().st_mtime_ns for file in members} == members
    call(study, monkeypatch, folder, "--write", page, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["stages"]
    seen = {
        row: sum(found[f"merges-d{i}"]["rows"][row]["seen_gap"] for i in range(2)) for row in ("uniform", "consensus")
    }
    winner = min(sorted(seen), key=seen.get)
    shown = page.read_text()
    assert f"chosen: {winner}" in shown and "learned-coefficients" in shown and "doing nothing" in shown
    bounds = [found[f"bound-{by}-d0"]["bound"] for by in ("member", "layer", "tensor")]
    assert [one["by"] for one in bounds] == ["member", "layer", "tensor"] and bounds[0]["coefficients"] == 2


def test_a_stage_that_is_not_there_is_refused(study, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="there is no stage nonsense"):
        call(study, monkeypatch, tmp_path / "study", "--stage", "nonsense")


def test_the_winner_trains_on_no_retain_row_and_is_there_on_all_draws(study):
    from what_differs_tables import chosen_row

    def rows(**gaps):
        return {"rows": {name: {"seen_gap": gap} for name, gap in gaps.items()}}

    done = {
        "merges-a": rows(uniform=9.0, ties=8.0),
        "learned-a": rows(**{"learned-coefficients": 1.0}, rare=0.5),
        "merges-b": rows(uniform=5.0, ties=7.0),
        "learned-b": rows(**{"learned-coefficients": 1.0}),
        "confirmed-c": rows(ties=0.0),
    }
    assert chosen_row(done) == "uniform"
    with pytest.raises(SystemExit, match="no row is there on every draw"):
        chosen_row({"merges-a": rows(uniform=None)})


def test_a_setting_that_begins_from_given_models_asks_for_them(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import what_differs

    words = ["what_differs.py", str(tmp_path), "--data", str(tmp_path), "--setting", "resnet18", "--next"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="this setting begins from given models: say --models DIR"):
        what_differs.main()


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "small"])
def test_every_row_of_a_setting_is_one_that_a_run_takes(monkeypatch, tmp_path, name):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import what_differs
    import what_differs_rows as rows

    places = {"data": tmp_path, "models": tmp_path}
    monkeypatch.setattr("negmerge.experiment.config.Path.exists", lambda path: True)
    setting = rows.SETTINGS[name]
    study = what_differs.Study(tmp_path, setting, places)
    draw = setting.draws[-1]
    for group in (group for group in setting.groups if study.can(group, draw)):
        config = study.config(draw, setting.groups[group])
        assert [method.row for method in config.methods] == [rows.label_of(row) for row in setting.groups[group]]
    known = [rows.label_of(row) for group in setting.groups.values() for row in group]
    assert len(set(known)) == len(known) and set(setting.beside) <= set(known)


@pytest.mark.heavy(30)
def test_the_study_of_the_published_setting_runs_scaled_down(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import what_differs

    models = tmp_path / "models"
    models.mkdir()
    for i, kind in enumerate(("original", "retrain")):
        state = small_cnn.build(small_cnn.Settings(width=4), 10, (1, 8, 8), i).state_dict()
        write_state_dict(models / f"resnet18-cifar10-{kind}.safetensors", state)
    split = models / "resnet18-cifar10-split.json"
    split.write_text(json.dumps({"forget_rows": torch.arange(0, 300, 7).tolist()}))
    data = {"source": "digits", "train_rows": [0, 300], "forget": {"rows": str(split)}}
    scaled = [
        f"data={json.dumps(data)}",
        "model={family: small-cnn, width: 4}",
        "compute={precision: float32}",
        "pool={grid: {lr: [0.01, 0.02], epochs: [1]}}",
        "selection={objective: match-reference, max_alpha: 1, step: 0.5}",
        "threads=1",
    ]
    words = [word for change in scaled for word in ("--set", change)]
    arguments = [str(tmp_path / "study"), "--data", str(tmp_path), "--models", str(models), "--setting", "resnet18"]
    for stage in ("originals-given", "pool-given", "merges-given"):
        monkeypatch.setattr("sys.argv", ["what_differs.py", *arguments, "--stage", stage, *words])
        what_differs.main()
    found = json.loads((tmp_path / "study" / "stages" / "merges-given.json").read_text())
    assert set(found["rows"]) == {"uniform", "consensus"} and found["rows"]["uniform"]["seen_gap"] is not None
