"""Whole runs on the digits: numbers, resumption after SIGKILL, seeds, other sources, verification."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.experiment.config import check_config
from negmerge.experiment.health import moved_statistics, pool_health
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.record import verify_run
from negmerge.experiment.rundir import RunDir
from negmerge.experiment.warnings import by_weights, diverged_members, pool_warnings, unlearned_members
from negmerge.merging.engine import merge_checkpoints, merge_vector
from negmerge.record.statement import flattened, read_statement

TINY = {
    "name": "tiny",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"classes": ["3"]}},
    "base": {"train": {"epochs": 4, "lr": 0.01, "batch_size": 64, "schedule": "one-cycle"}},
    "reference": {"train": "base"},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3], "epochs": [2, 4]}},
    "methods": ["consensus", "uniform", "best-single", "retrain"],
}


def config(**changes):
    return check_config({**yaml.safe_load(yaml.safe_dump(TINY)), **changes})


TIMES = {"seconds", "seconds_parts", "time"}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "tiny"
    return place, run(config(), place, command="negmerge run tiny.yaml")


def test_the_numbers_of_a_class_forgetting(finished):
    _, results = finished
    assert results._repr_html_().startswith("<table><caption>tiny: forget class 3")
    base, consensus, reference = results["base"], results["methods"]["consensus"], results["reference"]
    assert base["forget"] > 85 and base["test"] > 90
    assert reference["forget"] == 0.0 and reference["test"] > 90
    assert consensus["forget"] < 10 and consensus["retain"] > 0.9 * base["retain"]
    assert consensus["alpha"] > 0 and 0 < consensus["consensus"] < 1
    assert results["methods"]["uniform"]["consensus"] == 1.0
    assert consensus["gap"] == pytest.approx(sum(consensus["gap_parts"].values()) / 4)
    assert consensus["gap_parts"]["forget"] == pytest.approx(abs(consensus["forget"] - reference["forget"]))
    assert results["methods"]["retrain"]["gap"] == 0.0
    assert results["task"]["forget_classes"] == ["3"] and base["per_class"][3] > 80 and consensus["per_class"][3] < 20
    rows = results["task"]["rows"]
    assert sum(rows.values()) == 1797
    single = results["methods"]["best-single"]
    assert single["member"] in [m["name"] for m in results["pool"]["members"]]
    assert single["seconds"] >= single["seconds_parts"]["pool"] == consensus["seconds_parts"]["pool"] > 0


def test_the_pools_health_is_recorded(finished):
    place, results = finished
    pool = results["pool"]
    cosine = pool["cosine"]
    pairs = [cosine[i][j] for i in range(4) for j in range(4) if i != j]
    assert pool["mean_cosine"] == pytest.approx(sum(pairs) / 12) and pool["chance"] == 0.125
    assert list(pool["health"]) == ["base", *(m["name"] for m in pool["members"])]
    assert pool["health"]["base"]["forget"] == results["base"]["forget"]
    for member in pool["members"]:
        assert member["forget_loss"] < pool["health"]["base"]["loss"] and member["forget"] >= 95
    assert json.loads((place / "pool.json").read_text())["health"] == pool["health"]


def test_a_member_whose_statistics_alone_are_off_is_not_called_diverged(finished, tmp_path):
    place, results = finished
    base, name = place / "base/model.safetensors", results["pool"]["members"][-1]["name"]
    state = read_state_dict(place / f"private/pool/{name}/model.safetensors")
    off = {key: value + 5.0 if key.endswith("running_mean") else value for key, value in state.items()}
    changes = {"off": off, "lost": {key: -value if key.endswith("weight") else value for key, value in off.items()}}
    members = {name: tmp_path / f"{name}.safetensors" for name in changes}
    for name, changed in changes.items():
        write_state_dict(members[name], changed)
    material = prepare(RunDir(place), config())
    moved = moved_statistics(base, members)
    health = pool_health(material.task, material.parts["forget"], base, members, "cpu", moved)
    known = health["base"]["forget"]
    assert health["off"]["forget"] < known - 20 and by_weights(health["off"])["forget"] >= known
    assert health["lost"]["kept"]["forget"] < known - 20
    assert diverged_members(health) == unlearned_members(health) == ["lost"]
    found = pool_warnings(0.5, 0.25, [[1.0, 0.3], [0.3, 1.0]], list(members), health)
    assert [one["text"].split(" in ")[0] for one in found] == ["member lost diverged"]
    still = pool_health(material.task, material.parts["forget"], base, members, "cpu", dict.fromkeys(members, 0.0))
    assert diverged_members(still) == ["off", "lost"] and "kept" not in still["off"]


def test_controls(finished, tmp_path):
    place = finished[0]
    methods = ["original", {"name": "retrain", "label": "again", "seed": 1}, "retrain"]
    pool = {"train": {"batch_size": 32, "freeze_statistics": True}, "grid": {"lr": [1e-4], "epochs": [1]}}
    given = {"base": {"checkpoint": str(place / "base/model.safetensors")}, "reference": TINY["base"]}
    results = run(config(methods=methods, pool=pool, **given), tmp_path / "controls")
    rows = results["methods"]
    for key in ("forget", "retain", "test", "membership", "gap"):
        assert rows["original"][key] == results["base"][key]
    assert rows["original"]["needs"] == [] and rows["original"]["seconds"] == 0 and rows["retrain"]["gap"] == 0.0
    assert rows["again"]["forget"] == 0.0 and 0 < rows["again"]["gap"] < rows["original"]["gap"]
    first, again, reference = (
        (tmp_path / "controls" / name / "model.safetensors").read_bytes()
        for name in ("methods/retrain", "methods/again", "reference")
    )
    assert first == reference != again
    theirs, ours = (
        read_state_dict(path)
        for path in (
            place / "base/model.safetensors",
            next((tmp_path / "controls/private/pool").glob("*/*.safetensors")),
        )
    )
    assert torch.equal(theirs["1.running_mean"], ours["1.running_mean"])
    assert torch.equal(theirs["1.num_batches_tracked"], ours["1.num_batches_tracked"])
    assert not torch.equal(theirs["1.weight"], ours["1.weight"])


def test_the_chosen_alpha_is_the_best_of_its_curve(finished):
    for row in (finished[1]["methods"][name] for name in ("consensus", "uniform", "best-single")):
        assert row["curve"][0]["alpha"] == 0.0
        assert row["floor"] == pytest.approx(0.95 * row["curve"][0]["retain"])
        holding = [p for p in row["curve"] if p["retain"] >= row["floor"]]
        assert row["alpha"] == min(holding, key=lambda p: (p["forget"], p["alpha"]))["alpha"]


def test_the_model_is_the_one_that_the_merge_command_writes(finished, tmp_path):
    place, results = finished
    members = sorted((place / "private" / "pool").glob("*/model.safetensors"))
    alpha = results["methods"]["consensus"]["alpha"]
    merge_checkpoints(place / "base" / "model.safetensors", members, tmp_path / "o.safetensors", alpha=alpha)
    ours, theirs = (
        read_state_dict(path) for path in (place / "methods/consensus/model.safetensors", tmp_path / "o.safetensors")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) and set(ours) == set(theirs)
    base = read_state_dict(place / "base" / "model.safetensors")
    assert all(torch.equal(ours[n], base[n]) for n in base if "running" in n or "num_batches" in n)


def test_what_lies_in_the_run_directory(finished):
    place, _ = finished
    assert {"config.yaml", "split.json", "results.json", "record.json", "report.html", "events.jsonl"} <= {
        p.name for p in place.iterdir()
    }
    assert stat.S_IMODE((place / "private").stat().st_mode) == 0o700
    record = flattened(json.loads((place / "record.json").read_text()))
    assert record["command"] == "negmerge run tiny.yaml" and record["config"] == config().resolved()
    assert record["peak_rss"] > 2**26 and record["versions"]["torch"] and record["started"] <= record["finished"]
    assert record["forget"]["rows"] == len(record["forget"]["listed"]) and record["seconds"] > 0
    whole = {entry["name"]: entry for entry in read_statement(place)["subject"]}
    made = whole["methods/consensus/model.safetensors"]["annotations"]["made_from"]
    assert {"base/model.safetensors", "private/methods/consensus/merged.safetensors", "split.json"} < set(made)
    assert set(whole) > {f"private/pool/{path.parent.name}/{path.name}" for path in place.glob("private/pool/*/*")}
    outputs = {entry["path"] for entry in record["outputs"]}
    assert {"results.json", "methods/consensus/model.safetensors", "base/model.safetensors", "split.json"} <= outputs
    assert not any(path.startswith("private") for path in outputs)
    events = [json.loads(line)["event"] for line in (place / "events.jsonl").read_text().splitlines()]
    assert events.count("trained") == 2 + 4 and events[-1] == "finished"
    assert not list(place.rglob("*.partial"))


def test_a_finished_run_repeats_at_once_and_verifies(finished):
    place, results = finished
    before = (place / "results.json").read_bytes(), (place / "report.html").read_bytes()
    started = time.perf_counter()
    assert run(config(), place) == results
    assert time.perf_counter() - started < 10
    assert ((place / "results.json").read_bytes(), (place / "report.html").read_bytes()) == before
    assert verify_run(place) > 10


def test_a_changed_output_is_found(finished, tmp_path):
    import shutil

    place = tmp_path / "copy"
    shutil.copytree(finished[0], place)
    target = place / "methods" / "consensus" / "model.safetensors"
    target.write_bytes(target.read_bytes()[:-1] + b"\1")
    (place / "split.json").unlink()
    with pytest.raises(InputError, match="2 files are not what the record says") as caught:
        verify_run(place)
    assert "methods/consensus/model.safetensors was changed" in str(caught.value)
    assert "split.json is missing" in str(caught.value)
    shutil.copy(finished[0] / "split.json", place / "split.json")
    shutil.copy(finished[0] / "methods/consensus/model.safetensors", target)
    (place / "private/pool/more.safetensors").write_bytes(b"")
    (place / "report.html").unlink()
    with (place / "events.jsonl").open("a") as log:  # a log may grow, but what it held stays
        log.write("{}\n")
    with pytest.raises(InputError, match="2 files are not what the record says") as caught:
        verify_run(place)
    assert "private/pool/more.safetensors was added" in str(caught.value)
    assert "report.html is missing" in str(caught.value)
    with pytest.raises(InputError, match=r"has no record\.json"):
        verify_run(tmp_path)


def test_another_config_is_refused_with_the_difference(finished, tmp_path):
    with pytest.raises(InputError, match="holds a run of another config") as caught:
        run(config(seeds=[7]), finished[0])
    assert "- 0" in str(caught.value) and "- 7" in str(caught.value)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and no run of negmerge"):
        run(config(), tmp_path)


def test_two_processes_do_not_share_a_directory(tmp_path):
    import fcntl

    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(NegmergeError, match="another process is running here"):
            run(config(), tmp_path)


SCRIPT = """
import sys, yaml
from pathlib import Path
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
if __name__ == "__main__":
    run(check_config(yaml.safe_load(Path(sys.argv[1]).read_text())), sys.argv[2], command="negmerge run tiny.yaml")
"""


@pytest.mark.parametrize("moments", [(7,), pytest.param((1, 2, 4, 7, 9, 13), marks=pytest.mark.heavy(40))])
def test_killed_at_random_moments_it_ends_with_the_same_numbers_and_weights(finished, tmp_path, moments):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TINY))
    (tmp_path / "run.py").write_text(SCRIPT)
    place = tmp_path / "run"
    words = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "c.yaml"), str(place)]
    draw = random.Random(0)
    kills = 0
    for moment in moments:  # kill after so many events, and a little later
        process = subprocess.Popen(words)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            lines = (place / "events.jsonl").read_text().count("\n") if (place / "events.jsonl").exists() else 0
            if lines >= moment + 6 * kills:
                time.sleep(draw.uniform(0, 0.2))
                break
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert not (place / "results.json").exists() or (place / "base/model.safetensors").exists()
    assert kills >= min(3, len(moments))
    assert run(config(), place)["methods"]  # the same, in this process
    results = json.loads((place / "results.json").read_text())
    assert without_times(results) == without_times(finished[1])
    for model in ("base", "reference", "methods/consensus", "methods/best-single"):
        ours, theirs = ((folder / model / "model.safetensors").read_bytes() for folder in (place, finished[0]))
        assert ours == theirs, model
    verify_run(place)


@pytest.mark.heavy(8)
def test_workers_change_nothing(finished, tmp_path):
    base = {"checkpoint": str(finished[0] / "base/model.safetensors")}
    results = run(config(workers=2, base=base, reference=TINY["base"]), tmp_path / "two")
    assert without_times(results["methods"]) == without_times(finished[1]["methods"])


@pytest.mark.heavy(3)
def test_several_seeds_are_averaged(tmp_path):
    results = run(config(seeds=[0, 1], methods=["consensus"], reference="none"), tmp_path / "seeds", purge=True)
    row = results["methods"]["consensus"]
    assert [set(p.name for p in tmp_path.joinpath("seeds").glob("seed-*"))] == [{"seed-0", "seed-1"}]
    first, second = row["seeds"]
    assert row["test"] == pytest.approx((first["test"] + second["test"]) / 2)
    assert row["std"]["test"] == pytest.approx(abs(first["test"] - second["test"]) / 2**0.5)
    assert results["reference"] is None and row["gap"] is None and len(results["base"]["seeds"]) == 2
    assert not list((tmp_path / "seeds").rglob("private"))
    assert "±" in (tmp_path / "seeds" / "report.html").read_text()


def test_random_rows_and_a_checkpoint_as_base(finished, tmp_path):
    base = finished[0] / "base" / "model.safetensors"
    results = run(
        config(
            base={"checkpoint": str(base)},
            reference={"checkpoint": str(finished[0] / "reference" / "model.safetensors")},
            data={"source": "digits", "forget": {"fraction": 0.05}},
            methods=["consensus"],
        ),
        tmp_path / "random",
    )
    assert results["task"]["kind"] == "random" and results["task"]["rows"]["test_forget"] == 0
    assert results["selection"]["held_out_rows"] == 0 and results["selection"]["objective"] == "match-holdout"
    assert results["methods"]["consensus"]["gap"] is not None
    record = flattened(json.loads((tmp_path / "random" / "record.json").read_text()))
    assert str(base) in [entry["path"] for entry in record["inputs"]]


def test_forgetting_another_source(tmp_path):
    from PIL import Image

    for part, count in (("train", 40), ("test", 10)):
        for name, value in (("light", 255), ("3", 128)):
            folder = tmp_path / "squares" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = Image.new("L", (8, 8), 0)
                image.paste(value, (i % 4, i % 3, 4 + i % 4, 4 + i % 5))
                image.save(folder / f"{i}.png")
    forget = {"source": "image-folder", "path": str(tmp_path / "squares")}
    changes = {"data": {"source": "digits", "forget": forget}, "methods": ["consensus", "retrain"], "reference": "none"}
    results = run(config(**changes), tmp_path / "run")
    assert results["task"]["text"] == "forget squares, keep digits"
    assert results["task"]["kind"] == "source" and results["task"]["rows"]["test_forget"] == 20
    assert results["task"]["classes"][-1] == "light" and len(results["task"]["classes"]) == 11
    assert results["base"]["forget"] > 90 and results["methods"]["consensus"]["forget"] < 60
    assert results["methods"]["retrain"]["forget"] < 60 and results["methods"]["retrain"]["retain"] > 85


@pytest.mark.heavy(3)
def test_leaving_one_member_out(finished, tmp_path):
    base = str(finished[0] / "base" / "model.safetensors")
    pool = {**TINY["pool"], "leave_one_out": True}
    changed = config(base={"checkpoint": base}, reference="none", methods=["consensus"], pool=pool)
    results = run(changed, tmp_path / "loo")
    names = [member["name"] for member in results["pool"]["members"]]
    assert list(results["pool"]["leave_one_out"]) == names and len(names) == 4
    place = tmp_path / "loo" / "private"
    merge_vector(
        base, [place / "pool" / name / "model.safetensors" for name in names[1:]], tmp_path / "tau.safetensors"
    )
    ours = place / "methods" / f"consensus-without-{names[0]}" / "merged.safetensors"
    assert ours.read_bytes() == (tmp_path / "tau.safetensors").read_bytes()


def test_a_base_that_does_not_fit_is_refused(finished, tmp_path):
    wide = config(
        base={"checkpoint": str(finished[0] / "base" / "model.safetensors")},
        model={"family": "small-cnn"},
        reference="none",
        methods=["consensus"],
    )
    with pytest.raises(InputError, match="does not fit small-cnn with 10 classes on images of shape"):
        run(wide, tmp_path / "r")


@pytest.mark.heavy(60)
def test_the_demo_runs_as_a_newcomer_runs_it(tmp_path):
    script = Path(sys.executable).parent / "negmerge"
    done = subprocess.run(
        [script, "demo", "-o", str(tmp_path / "d")], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "consensus" in done.stdout and "report.html" in done.stdout
    results = json.loads((tmp_path / "d" / "results.json").read_text())
    assert len(results["pool"]["members"]) >= 9
    assert results["verdict"]["word"] in ("suppressed", "forgotten")  # never "can't tell": the tests tell here
    assert results["methods"]["consensus"]["forget"] < 20 and results["methods"]["consensus"]["retain"] > 90
