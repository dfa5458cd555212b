"""A task in one file, which a config names by its path or by an entry point: a whole run, and what is refused."""

import json
import shutil
import sys
from importlib import metadata
from operator import attrgetter
from pathlib import Path

import pytest
import torch

from negmerge import registry
from negmerge.checkpoints import read_state_dict
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.execution import run_jobs
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import load_unwritten
from negmerge.experiment.rows import find_rows
from negmerge.record.statement import flattened

HERE = Path(__file__).parent


def config(task, **changes):
    raw = {
        "name": "wine",
        "task": task,
        "workers": 1,
        "threads": 1,
        "device": "cpu",
        "model": {"family": "mlp", "width": 16},
        "data": {"source": "wine", "forget": {"classes": ["class_1"]}},
        "base": {"train": {"epochs": 20, "lr": 0.01, "batch_size": 16}},
        "reference": {"train": "base"},
        "pool": {"train": {"batch_size": 16}, "grid": {"lr": [0.003, 0.01], "epochs": [4, 8]}},
        "methods": ["consensus", "random-labels", "retrain"],
    }
    return check_config({**raw, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    file = shutil.copy(HERE / "task.py", folder / "mine.py")
    return file, folder / "run", run(config({"file": str(file)}), folder / "run")


def test_a_run_forgets_a_class(finished):
    file, folder, results = finished
    assert results["task"]["text"] == "forget class class_1 of wine"
    base, merged = results["base"], results["methods"]["consensus"]
    assert base["forget"] > 95 and base["test"] > 90
    assert merged["forget"] < 20 and merged["test_forget"] < 20 and merged["retain"] > 90
    assert results["reference"]["forget"] == 0.0 and 0 <= merged["membership"] <= 100
    assert "Forget rows right" in (folder / "report.html").read_text()
    inputs = {
        entry["path"]: entry["hash"] for entry in flattened(json.loads((folder / "record.json").read_text()))["inputs"]
    }
    assert inputs.keys() >= {str(file), "rows:wine"}


@pytest.mark.heavy(8)
def test_a_task_of_a_file_reaches_workers():
    own = config({"file": str(HERE / "task.py")})
    task = load_unwritten(own).task
    assert run_jobs(attrgetter("classes", "width"), [task, task], workers=2) == [(3, 16), (3, 16)]


@pytest.mark.heavy(20)
def test_workers_train_the_same_members(finished, tmp_path):
    file, folder, _ = finished
    run(config({"file": str(file)}, workers=2, methods=["consensus"]), tmp_path / "run")
    members = sorted(path.relative_to(folder) for path in folder.glob("private/pool/*/model.safetensors"))
    assert len(members) == 4
    for member in members:
        one, other = read_state_dict(folder / member), read_state_dict(tmp_path / "run" / member)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_goes_on_with_the_file_that_it_was_begun_with(finished, tmp_path):
    file = shutil.copy(HERE / "task.py", tmp_path / "mine.py")
    short = {"methods": ["uniform"], "pool": {"grid": {"lr": [0.01], "epochs": [1]}}}
    own = config({"file": str(file)}, **short)
    first = run(own, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "methods")
    (tmp_path / "run" / "record.json").unlink()
    assert run(own, tmp_path / "run")["methods"]["uniform"]["test"] == first["methods"]["uniform"]["test"]
    file.write_text(file.read_text() + "\n")
    (tmp_path / "run" / "record.json").unlink()
    with pytest.raises(InputError, match=r"mine.py changed \(task\)"):
        run(own, tmp_path / "run")


def test_a_task_may_be_an_entry_point(tmp_path, monkeypatch):
    shutil.copy(HERE / "task.py", tmp_path / "wines_of_mine.py")
    entry = metadata.EntryPoint("wines", "wines_of_mine", "negmerge.tasks")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry] if group == entry.group else [])
    registry._locations.cache_clear()
    try:
        found = find_rows(config("wines"))
        tasks = ["causal-lm", "image-classification", "text-classification", "wines", "zero-shot"]
        assert registry.names("tasks") == tasks
        with pytest.raises(InputError, match=r"unknown task 'wine' \(did you mean 'wines'\?\)"):
            config("wine")
    finally:
        registry._locations.cache_clear()
        sys.modules.pop("wines_of_mine", None)
    assert {row["group"] for row in found.forgotten} == {"class_1"} and found.counts["forget"] == len(found.forgotten)


def test_tasks_are_listed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["list", "tasks"])
    assert ended.value.code == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == registry.names("tasks")


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("text-clasification", {}, r"unknown task 'text-clasification' \(did you mean 'text-classification'\?\)"),
        ({"file": "gone.py"}, {}, "gone.py: no such file; give the path of a plug-in"),
        ({"path": "task.py"}, {}, r"task: write a name, or \{file: PATH\}"),
        ({"file": str(HERE / "score.py")}, {}, r"lacks load_data, make_task, source_file, family_of$"),
        (None, {"model": {"family": "mpl"}}, r"unknown family 'mpl' \(did you mean 'mlp'\?\); this task has mlp"),
        (None, {"data": {"source": "beer", "forget": {"fraction": 0.1}}}, "unknown source 'beer'; this task has wine"),
        (None, {"model": {"family": "mlp", "widht": 3}}, r"model \(mlp\): widht: unknown key \(did you mean 'width'"),
        (None, {"base": {"train": {"augment": "flip"}}}, "base.train: augment: flip is for images; leave it out"),
        (None, {"base": {"pretrained": True}}, "base.pretrained: mlp has no weights of its own"),
        ("zero-shot", {"model": {"family": "small-cnn"}}, "task: zero-shot needs a family that classifies by prompts"),
    ],
)
def test_what_is_wrong_is_one_line(task, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        config({"file": str(HERE / "task.py")} if task is None else task, **changes)
    assert "\n" not in str(caught.value)
