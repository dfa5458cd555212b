"""`negmerge run` with every registered method: the rows, what a search leaves behind, and resumption after SIGKILL."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from negmerge import registry
from negmerge.checkpoints import read_state_dict
from negmerge.experiment import plan as plan_module
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.plan import plan

UNLEARNING = registry.names("methods", "negmerge.unlearning.methods")
LANGUAGE = ["grad-diff", "idk-dpo", "npo", "rmu", "simnpo", "ssd"]
SHORT = {"epochs": 2, "batch_size": 64}
ROWS = [
    "consensus",
    "uniform",
    "best-single",
    "greedy",
    {"name": "fine-tune", "lr": [1e-3, 1e-1], **SHORT},
    {"name": "gradient-ascent", **SHORT},
    {"name": "random-labels", "lr": 0.1, **SHORT},
    {"name": "random-labels", "label": "random-labels-forget", "retain": False, "lr": 1e-3, **SHORT},
    {"name": "l1-sparse", "lr": 0.05, **SHORT},
    {"name": "influence", "samples": 50},
    {"name": "boundary-shrink", "lr": 1e-3, **SHORT},
    {"name": "boundary-expanding", "lr": 1e-3, **SHORT},
    {"name": "salun", "lr": 0.1, **SHORT},
    {"name": "salun", "label": "salun-forget", "retain": False, "lr": 1e-3, **SHORT},
    {"name": "sisa", "shards": 2, "slices": 2, "train": {"epochs": 3, "lr": 0.01, "batch_size": 64}},
    "retrain",
    {"name": "retrain", "label": "retrain-again", "seed": 1},
    "original",
    {"name": "ties", "density": 0.3},
    "magmax",
    "random-mask",
    "shuffled-signs",
]
BEYOND = [  # rows beyond one merge
    {"name": "alpha-by-layer", "evaluations": 6},
    {"name": "learned-coefficients", "steps": 5},
    "importance",
    "msa",
    "contrast",
    {"name": "two-step", "members": 1},
    {"name": "unlearning-pool", "epochs": 1, "repeats": 1},
]
ALL = {
    "name": "all",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"fraction": 0.1}},
    "base": {"train": {"epochs": 6, "lr": 0.01, "batch_size": 64, "schedule": "one-cycle"}},
    "reference": {"train": "base"},
    "pool": {"train": {"batch_size": 32}, "grid": {"lr": [1e-3, 3e-3, 1e-2]}},
    "methods": ROWS,
}


def config(**changes):
    return check_config({**yaml.safe_load(yaml.safe_dump(ALL)), **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "all"
    return place, run(config(), place)


def test_the_config_has_every_method():
    # Merge methods that take part in no run of their own are left to the contract of merging.
    # Those made for language models learn and forget facts in tests/language/test_facts.py.
    assert set(UNLEARNING) - set(LANGUAGE) <= {row.name for row in config(methods=[*ROWS, *BEYOND]).methods}


@pytest.mark.heavy(20)
def test_rows_beyond_one_merge_have_their_numbers(tmp_path):
    raw = config(methods=["original", *BEYOND])
    rows = run(raw, tmp_path / "run")["methods"]
    assert list(rows) == [row.row for row in raw.methods]
    for name in list(rows)[1:]:
        assert 0 <= rows[name]["gap"] <= 100 and min(rows[name][part] for part in ("forget", "retain", "test")) >= 0
        assert read_state_dict(tmp_path / "run" / "methods" / name / "model.safetensors").keys()
    again = run(raw, tmp_path / "run")["methods"]
    assert {name: row["gap"] for name, row in again.items()} == {name: row["gap"] for name, row in rows.items()}


@pytest.mark.heavy(13)
def test_every_row_has_its_numbers(finished):
    place, results = finished
    assert list(results["methods"]) == [row.row for row in config().methods]
    for label, row in results["methods"].items():
        assert row["gap"] is not None and 0 <= row["membership"] <= 100, label
        assert min(row["forget"], row["retain"], row["test"]) >= 0
        assert row["seconds"] > 0 or label == "original"
        assert row["seconds"] == pytest.approx(sum(row["seconds_parts"].values()))
        assert (place / "methods" / label / "model.safetensors").exists()
        assert label in (place / "report.html").read_text()
    assert results["methods"]["retrain"]["gap"] == 0.0 < results["methods"]["retrain-again"]["gap"]
    assert results["methods"]["original"]["gap"] == results["base"]["gap"]


@pytest.mark.heavy(1)
def test_the_controls_have_the_density_of_the_consensus(finished):
    place, results = finished
    rows = results["methods"]
    merged = {
        name: read_state_dict(place / "private" / "methods" / name / "merged.safetensors")
        for name in ("consensus", "shuffled-signs", "random-mask", "uniform")
    }
    assert rows["shuffled-signs"]["kept"] == rows["consensus"]["kept"]
    for asked, drawn in zip(rows["consensus"]["layers"], rows["random-mask"]["layers"], strict=True):
        size, share = asked["elements"], asked["kept"] / asked["elements"]
        assert drawn["name"] == asked["name"]
        assert abs(drawn["kept"] - asked["kept"]) <= 5 * (size * share * (1 - share)) ** 0.5, asked["name"]
    for name, value in merged["consensus"].items():
        assert (merged["shuffled-signs"][name].abs() == value.abs()).all()
        drawn = merged["random-mask"][name]
        assert ((drawn == 0) | (drawn == merged["uniform"][name])).all()
    assert rows["consensus"]["kept"] < rows["consensus"]["merged_elements"]


@pytest.mark.heavy
def test_random_merges_draw_by_the_seed_of_the_run(finished, tmp_path):
    from negmerge.merging.engine import merge_vector

    place = tmp_path / "seeds"
    run(config(seeds=[3, 4], methods=["random-mask", "shuffled-signs"]), place)
    for seed in (3, 4):
        folder = place / f"seed-{seed}"
        members = sorted((folder / "private" / "pool").glob("*/model.safetensors"))
        for name in ("random-mask", "shuffled-signs"):
            ours = read_state_dict(folder / "private" / "methods" / name / "merged.safetensors")
            again = {}
            for drawn in (seed, 0):
                target = tmp_path / f"{name}-{drawn}.safetensors"
                merge_vector(folder / "base" / "model.safetensors", members, target, method=name, seed=drawn)
                again[drawn] = read_state_dict(target)
            assert all((ours[key] == again[seed][key]).all() for key in ours)
            assert not all((ours[key] == again[0][key]).all() for key in ours)


@pytest.mark.heavy(1)
def test_rows_say_what_data_they_used(finished):
    needs = {label: row["needs"] for label, row in finished[1]["methods"].items()}
    assert needs["salun"] == ["forget", "retain"] and needs["salun-forget"] == ["forget"]
    assert needs["random-labels-forget"] == needs["gradient-ascent"] == needs["boundary-shrink"] == ["forget"]
    assert needs["fine-tune"] == needs["l1-sparse"] == ["retain"]


@pytest.mark.heavy(1)
def test_a_search_lands_in_the_results(finished):
    place, results = finished
    row = results["methods"]["fine-tune"]
    search = row["search"]
    assert search["ranges"] == {"lr": [1e-3, 1e-1]} and row["settings"]["lr"] == search["winner"]["lr"]
    assert [trial["settings"] for trial in search["candidates"]] == [{"lr": 1e-3}, {"lr": 1e-1}]
    assert row["seconds_parts"]["search"] == search["seconds"] > 0
    assert row["settings"]["epochs"] == 2
    assert set(results["methods"]["influence"]["search"]["ranges"]) == {"scale"}  # the method's own range
    assert "search" not in results["methods"]["random-labels"]
    of_base = next(p for p in results["methods"]["consensus"]["curve"] if p["alpha"] == 0)
    floors = {"retain": 0.95 * of_base["retain"]}  # rows at random: match-holdout
    scores = [trial["scores"] for trial in search["candidates"]]
    holding = [one for one in scores if all(one[key] >= floor for key, floor in floors.items())]
    best = min(holding, key=lambda one: one["holdout"])
    assert search["winner"] == search["candidates"][scores.index(best)]["settings"]
    winner = place / "private" / "methods" / "fine-tune" / f"candidate-{search['index']:03d}" / "model.safetensors"
    ours, theirs = read_state_dict(winner), read_state_dict(place / "methods" / "fine-tune" / "model.safetensors")
    assert all((ours[key] == theirs[key]).all() for key in theirs)


@pytest.mark.heavy
def test_the_search_is_made_on_the_first_seed_alone(tmp_path):
    events = []
    rows = [{"name": "fine-tune", "lr": [1e-3, 1e-1], **SHORT}, "greedy", {**ROWS[14], "seeds": 1}]
    results = run(config(seeds=[4, 5], methods=rows), tmp_path / "seeds", on_event=events.append)
    assert sum(event["event"] == "candidate" for event in events) == 2
    row = results["methods"]["fine-tune"]
    first, second = row["seeds"]
    assert first["search"] == second["search"] == row["search"]
    assert first["settings"] == second["settings"] and first["test"] != second["test"]
    assert row["seconds_parts"]["search"] == pytest.approx(row["search"]["seconds"])
    other = tmp_path / "seeds" / "seed-5" / "private" / "methods" / "fine-tune"
    assert [folder.name for folder in other.iterdir()] == [f"candidate-{row['search']['index']:03d}"]
    assert isinstance(results["methods"]["greedy"]["taken"][0], str)
    sisa = results["methods"]["sisa"]  # asked for on one seed alone: a row without a deviation
    assert len(sisa["seeds"]) == 1 and sisa["std"] == {} and sisa["forget"] == sisa["seeds"][0]["forget"]
    assert not (tmp_path / "seeds" / "seed-5" / "methods" / "sisa").exists()


def test_the_plan_counts_what_the_competitors_train(monkeypatch):
    monkeypatch.setattr(plan_module, "_seconds", lambda step: 1.0)  # a second each: no count depends on the speed
    few = plan(config(methods=["consensus"]))
    rows = few.rows
    more = plan(config(methods=["consensus", {"name": "fine-tune", "lr": [1e-3, 1e-1], **SHORT}]))
    assert more.training_rows - few.training_rows == 2 * 2 * rows["retain"]
    forget_only = {"name": "salun", "retain": False, "lr": 0.1, **SHORT}
    masked = plan(config(methods=["consensus", forget_only])).training_rows - few.training_rows
    assert masked == (1 + 2) * rows["forget"]  # gradients for the mask, then two epochs
    seeds = plan(config(seeds=[0, 1], methods=["consensus", {"name": "fine-tune", "lr": [1e-3, 1e-1], **SHORT}]))
    assert seeds.training_rows - 2 * few.training_rows == (2 + 1) * 2 * rows["retain"]
    sisa = ROWS[14]
    once = plan(config(seeds=[0, 1], methods=["consensus", {**sisa, "seeds": 1}])).training_rows
    assert once - 2 * few.training_rows == 3 * rows["retain"]
    two = ["best-single", {"name": "greedy", "buffers": {"recalibrate": "forget", "rows": 100}}]
    conv = {"model": {"family": "cifar-resnet", "depth": 20}, "data": {"source": "digits", "forget": {"fraction": 0.1}}}
    apart = (
        plan(config(methods=two, **conv)).evaluated_rows
        - plan(config(methods=["best-single", "greedy"], **conv)).evaluated_rows
    )
    assert apart == 3 * 13 * (min(2000, rows["retain"]) + rows["forget"])  # once for each policy
    matched = plan(config(methods=["consensus"], selection={"objective": "match-reference"}))
    assert matched.evaluated_rows - few.evaluated_rows == 13 * rows["validation"]  # match-holdout asks the base alone
    floored = plan(config(methods=["consensus"], selection={"objective": "retain-floor"}))
    assert few.evaluated_rows == floored.evaluated_rows
    both = plan(config(methods=["consensus"], selection={"objective": "match-holdout", "floor_on": "both"}))
    assert both.evaluated_rows == matched.evaluated_rows
    seen = min(2000, rows["retain"]) + rows["forget"]
    for selection, points in (
        ({"max_alpha": 1.0}, 8),
        ({"search": "grid"}, 21),
        ({"search": "grid", "max_alpha": 2.0, "step": 0.1}, 21),
        ({"search": "grid", "max_alpha": 2.0}, 41),
    ):
        tried = plan(config(methods=["consensus"], selection=selection)).evaluated_rows
        assert few.evaluated_rows - tried == (13 - points) * seen
    greedy = plan(config(methods=["best-single", "greedy"])).evaluated_rows
    assert greedy > plan(config(methods=["best-single"])).evaluated_rows


@pytest.mark.heavy
def test_searches_and_single_members_are_judged_by_the_gap_where_alpha_is(tmp_path):
    rows = ["best-single", "greedy", {"name": "fine-tune", "lr": [1e-3, 1e-1], **SHORT}]
    results = run(config(methods=rows, selection={"objective": "match-reference"}), tmp_path / "run")
    singles = (tmp_path / "run").glob("private/shared/keep/single-members/*.curve.json")
    gaps = [min(point["gap"] for point in json.loads(file.read_text()).values()) for file in singles]
    best, greedy, tuned = (results["methods"][name] for name in ("best-single", "greedy", "fine-tune"))
    assert len(gaps) == 3 and len(set(gaps)) == 3
    assert min(point["gap"] for point in best["curve"]) == min(gaps)
    assert min(point["gap"] for point in greedy["curve"]) <= min(gaps)
    trials = tuned["search"]["candidates"]
    assert tuned["search"]["winner"] == min(trials, key=lambda trial: trial["scores"]["gap"])["settings"]


TIMES = {"seconds", "seconds_parts", "time"}


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES and k != "kept_seconds"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


SCRIPT = """
import sys, yaml
from pathlib import Path
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
if __name__ == "__main__":
    run(check_config(yaml.safe_load(Path(sys.argv[1]).read_text())), sys.argv[2])
"""


@pytest.mark.heavy
def test_killed_in_every_method_it_ends_with_the_same_numbers_and_weights(finished, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(ALL))
    (tmp_path / "run.py").write_text(SCRIPT)
    place = tmp_path / "run"
    words = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "c.yaml"), str(place)]
    events, kills = place / "events.jsonl", 0
    for kind, number in (("epoch", 1), ("candidate", 2), ("epoch", 14), ("epoch", 24), ("trained", 8)):
        process = subprocess.Popen(words)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            text = events.read_text() if events.exists() else ""
            if text.count(f'{{"event": "{kind}"') >= number:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.wait()
    assert kills == 5
    subprocess.run(words, check=True)
    results = json.loads((place / "results.json").read_text())
    assert without_times(results) == without_times(finished[1])
    for row in results["methods"]:
        ours, theirs = (
            (folder / "methods" / row / "model.safetensors").read_bytes() for folder in (place, finished[0])
        )
        assert ours == theirs, row
