"""What comes back while α is chosen, on models whose answer is known; and a whole run that chooses by it."""

import json

import pytest

from conftest import CONFIG
from negmerge.checkpoints import read_state_dict
from negmerge.cli.run import plan_text
from negmerge.errors import InputError
from negmerge.evidence.protocol import checked_settings, read_test
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.plan import plan
from negmerge.experiment.returning import ReturningAt, Returns


@pytest.fixture(scope="module")
def returns(weights):
    material, files = weights
    return Returns(material.task, material.parts, files["base"], files["reference"], 0, "class", "cpu"), files


@pytest.mark.heavy(25)
def test_the_base_comes_back_and_a_further_retrain_does_not(returns):
    tests, files = returns
    base, again = tests.positions(files["base"]), tests.positions(files["again"])
    assert base["relearning"].position == pytest.approx(1.0) and "relearning" in again
    assert again["relearning"].position < 0.4 and again["relearning"].low <= 0.1


@pytest.mark.heavy(20)
def test_each_alpha_is_tested_once_and_read_back(returns, tmp_path):
    tests, files = returns
    heard = []
    state = read_state_dict(files["head"])
    tested = ReturningAt(
        tests, lambda alpha: state, tmp_path / "x.lasting.json", lambda alpha, found: heard.append(alpha)
    )
    first = tested(0.5)
    assert list(tmp_path.iterdir()) == [tmp_path / "x.lasting.json"]  # no model of a candidate is left
    again = ReturningAt(
        tests, lambda alpha: pytest.fail("asked twice"), tested.file, lambda *_: pytest.fail("told twice")
    )
    assert again(0.5) == first and heard == [0.5] and again.seconds == tested.seconds > 0


@pytest.mark.heavy(90)
def test_a_run_chooses_what_lasts_and_says_what_was_tried(tmp_path):
    config = {**CONFIG, "methods": ["consensus"], "selection": {"objective": "lasting", "candidates": 4}}
    config["projection"] = {"strength": [1.0, 10.0], "samples": 100}
    results = run(check_config(config), tmp_path / "run")
    for row in results["methods"].values():
        tried = row["lasting"]
        assert 1 <= len(tried) <= 4 and all(one["retain"] >= row["floor"] for one in tried)
        told = [one for one in tried if one["distance"] is not None]
        assert not told or row["alpha"] in [one["alpha"] for one in told]
    assert {one["strength"] for one in results["methods"]["consensus projected"]["lasting"]} == {1.0, 10.0}
    assert "What is kept against what comes back" in (tmp_path / "run" / "report.html").read_text()
    events = len((tmp_path / "run" / "events.jsonl").read_text().splitlines())
    (tmp_path / "run" / "results.json").unlink()
    assert json.dumps(run(check_config(config), tmp_path / "run")) == json.dumps(results)
    later = (tmp_path / "run" / "events.jsonl").read_text().splitlines()[events:]
    assert not any('"event": "evaluated"' in line for line in later)  # nothing was tested again


@pytest.mark.heavy(6)  # speeds are measured for half a second each
def test_the_plan_counts_the_models_that_are_tested_and_the_curves():
    rule = {"objective": "lasting", "candidates": 6, "relearning": {"steps": 10}}
    config = check_config({**CONFIG, "methods": ["consensus", "retrain"], "selection": rule})
    made = plan(config).as_json()["lasting"]
    assert (made["models"], made["at_most"]) == (4, 6) and made["curves"] == pytest.approx(2 * made["seconds"])
    assert made["minutes"] == pytest.approx((4 * made["seconds"] + made["curves"]) / 60)
    projected = {**CONFIG, "selection": rule, "projection": {"strength": [1.0, 3.0, 10.0, 30.0, 100.0]}}
    whole = plan(check_config(projected))
    assert (whole.lasting["models"], whole.lasting["at_most"]) == (4 + 10, 6 + 10)  # two of each strength at least
    assert whole.minutes > whole.lasting["minutes"] > 0
    line = "lasting    about 14 models are tested while α is chosen, 16 at most, each about"
    assert line in plan_text("x", whole.as_json()) and "lasting" not in plan_text(
        "x", {**whole.as_json(), "lasting": None}
    )


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"objective": "lasting", "relearning": {"drawz": 5}}, r"selection: relearning: it does not take 'drawz'"),
        ({"relearning": {"lr": 0.1}}, "selection.relearning is of the objective lasting, and this is retain-floor"),
    ],
)
def test_settings_that_nobody_takes_are_refused(selection, message):
    with pytest.raises(InputError, match=message):
        check_config({**CONFIG, "selection": selection})


def test_steps_that_teach_retrain_nothing_let_nobody_pass(subject_of):
    slow = {"lr": 1e-7, "factors": (1.0,), "steps": 2, "scored": 20}
    base, again = (
        read_test("relearning").run(subject_of(one), checked_settings("relearning", slow)) for one in ("base", "again")
    )
    assert base.counted.informative and base.counted.position == pytest.approx(1.0)  # what is there needs no teaching
    assert not again.counted.informative and "teach Retrain nothing" in again.counted.why
