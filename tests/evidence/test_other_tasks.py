"""Every test of evidence in runs of other kinds: texts, prompts, pools of adapters, many seeds."""

import math
import sys
from pathlib import Path

import pytest

from clip_example import save_colours, save_tiny_clip, tiny_run
from conftest import CONFIG
from negmerge import registry
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run

ALL = list(registry.names("evidence"))
BRIEF = {
    "relearning": {"factors": [3.0], "steps": 20, "scored": 20},
    "fine-tuning": {"factors": [3.0], "steps": 10},
    "three-sample": {"resamples": 99},
    "u-lira": {"shadows": 6},
}


def asked(*names, **settings):
    return [{"name": name, **BRIEF.get(name, {}), **settings} for name in names]


def found(results):
    """The tests of a run by name, once each of them says what it found, in finite numbers."""
    tests = {test["name"]: test for test in results["evidence"]["tests"]}
    for test in tests.values():
        assert test["text"].endswith(".")
        for reading in test["readings"]:
            assert reading["informative"] == (not reading["why"])
            numbers = [reading[key] for key in ("base", "reference", "model", "position", "low", "high")]
            assert all(number is None or math.isfinite(number) for number in numbers)
    return tests


@pytest.mark.heavy(30)
def test_texts(tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[1] / "text"))
    from test_text_task import write
    from tiny_models import rows, run_of_texts

    data = write(tmp_path / "texts", train=rows(240), test=rows(90, seed=1))
    evidence = {"tests": asked(*ALL), "controls": 1}
    config = run_of_texts(data, reference={"train": "base"}, methods=["consensus"], evidence=evidence)
    tests = found(run(check_config(config), tmp_path / "run"))
    assert set(tests) == {"own-rows", *ALL}
    assert tests["probe"]["facts"]["kind"] == "unseen rows of the forgotten kind" and tests["depth"]["facts"]["cka"]
    assert {one["group"] for one in tests["who-paid"]["facts"]["neighbours"]} <= {"sport", "tech"}


@pytest.mark.heavy(30)
def test_prompts_of_two_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGMERGE_CACHE", str(tmp_path / "cache"))
    save_tiny_clip(tmp_path / "clip")
    save_colours(tmp_path)
    config = tiny_run("tiny", tmp_path / "clip", tmp_path)
    config |= {"reference": {"train": {"optimizer": "adamw", "epochs": 2, "lr": 1e-4}}}
    config["evidence"] = {
        "tests": asked(*(name for name in ALL if name not in ("offset", "u-lira"))),
        "controls": 0,
        "most": 60,
    }
    tests = found(run(check_config(config), tmp_path / "run"))
    assert tests["disagreement"]["facts"]["retain"]["model"]["kl"] < 10.0  # in the head of the row's own source


@pytest.mark.heavy(40)
def test_a_pool_of_adapters_is_relearnt_by_all_weights_and_by_an_adapter(tmp_path):
    pool = {**CONFIG["pool"], "adapter": {"r": 4, "targets": ["0", "3", "11"]}}
    tests = asked("depth"), asked("relearning"), asked("relearning", adapter={"r": 4, "targets": ["0", "3", "11"]})
    positions = []
    for number, (one,) in enumerate(tests):
        config = check_config({**CONFIG, "pool": pool, "evidence": {"tests": [one], "controls": 0}})
        results = run(config, tmp_path / "run")
        reading = found(results)[one["name"]]["counted"]
        positions.append(reading["position"])
        if number:
            assert reading["informative"] or "half of the base's score" in reading["why"]
    assert positions[1] != positions[2]


@pytest.mark.heavy(60)
def test_models_of_many_seeds(tmp_path):
    asking = {"tests": [{"name": "klom", "least": 4}, "disagreement"], "controls": 1}
    config = check_config({**CONFIG, "seeds": [0, 1, 2, 3], "evidence": asking})
    results = run(config, tmp_path / "run")
    klom = found(results)["klom"]
    assert klom["facts"]["models"] == {"base": 4, "retrained": 5, "unlearned": 4}
    reading = klom["counted"]
    assert reading["base"] > reading["model"] > 0 and reading["reference"] > 0 and not reading["controls"]
    assert (
        klom["facts"]["spread"]["forget"]["base"]["mean"] > 95 > klom["facts"]["spread"]["forget"]["retrained"]["mean"]
    )
    assert results["verdict"]["word"] and run(config, tmp_path / "run") == results
    more = run(check_config({**CONFIG, "seeds": [0, 1, 2, 3, 4], "evidence": asking}), tmp_path / "run")
    assert found(more)["klom"]["facts"]["models"]["base"] == 5
