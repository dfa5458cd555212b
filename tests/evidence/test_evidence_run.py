"""Evidence in a run: asked for in the config, in the results, on the page, on the command line; and without Retrain."""

import json

import pytest

from conftest import CONFIG
from negmerge.cli.run import plan_text, result_text
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.plan import plan
from negmerge.record.statement import flattened
from negmerge.report.document import results_document
from negmerge.report.evidence import plain
from negmerge.report.side_by_side import write_comparison

TESTS = ["offset", "depth", "three-sample"]


def config(**changes):
    return check_config({**CONFIG, "evidence": {"tests": TESTS, "controls": 1}, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("evidence-run") / "run"
    return place, run(config(), place)


def test_the_results_hold_evidence_and_verdict(finished):
    place, results = finished
    evidence, verdict = results["evidence"], results["verdict"]
    assert [test["name"] for test in evidence["tests"]] == ["own-rows", *TESTS]
    assert evidence["method"] == "consensus" and evidence["controls"] == 1
    assert verdict["word"] in ("forgotten", "suppressed", "too far", "can't tell") and "images" in verdict["text"]
    assert evidence["tests"][0]["counted"]["model"] == pytest.approx(results["methods"]["consensus"]["forget"])
    record = flattened(json.loads((place / "record.json").read_text()))
    assert "evidence/scores.json" in {entry["path"] for entry in record["outputs"]}


def test_page_document_and_command_line_print_the_one_verdict(finished):
    place, results = finished
    record = flattened(json.loads((place / "record.json").read_text()))
    page = (place / "report.html").read_text()
    for text in (page.replace("&#39;", "'"), results_document(results, record), result_text(results, place)):
        assert results["verdict"]["text"] in text
        for test in results["evidence"]["tests"]:
            first = test["text"].split("(")[0]
            assert first in text or plain(first, "images") in text
    assert 'aria-label="Position of each test' in page


def test_the_same_run_again_gives_the_same_evidence(finished, tmp_path):
    place, results = finished
    for name in ("results.json", "record.json"):
        (place / name).unlink()
    (place / "evidence" / "scores.json").unlink()
    again = run(config(), place)
    for one in (results, again):
        for test in one["evidence"]["tests"]:
            test.pop("seconds", None)
    assert again["evidence"] == results["evidence"] and again["verdict"] == results["verdict"]


def test_the_plan_says_what_the_tests_take():
    made = plan(config()).as_json()
    assert [test["name"] for test in made["evidence"]] == ["1 further Retrain(s)", *TESTS]
    assert all(test["minutes"] > 0 for test in made["evidence"])
    assert "evidence   depth: about" in plan_text("x", made)


def test_without_retrain_nothing_is_proved_and_the_reason_is_said_once(finished, tmp_path):
    results = run(config(reference="none"), tmp_path / "run")
    assert results["verdict"]["word"] in ("not refuted", "partly", "not")
    assert all(not test["counted"]["informative"] for test in results["evidence"]["tests"])
    record = flattened(json.loads((tmp_path / "run" / "record.json").read_text()))
    page = (tmp_path / "run" / "report.html").read_text().replace("no retrained", "no Retrain")
    for text in (page, results_document(results, record), result_text(results, tmp_path / "run")):
        assert text.count("no Retrain model to compare with") == 1  # once, and not for each test
        assert "Not made, as there is no Retrain model to compare with: offset, depth and three-sample." in text
    assert 'aria-label="Position of each test' not in page and "could not tell here" not in page
    write_comparison([tmp_path / "run", finished[0]], tmp_path / "both.html")
    both = (tmp_path / "both.html").read_text()
    assert both.count("to compare with: offset, depth and three-sample.") == 1 and both.count("not made</span>") == 4


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"tests": ["ofset"]}, "unknown test 'ofset'"),
        ({"tests": ["depth", "depth"]}, "depth stands twice"),
        ({"tests": [{"name": "depth", "row": 3}]}, r"depth: it does not take 'row' \(did you mean 'rows'\?\)"),
        ({"tests": ["depth"], "method": "consensu"}, r"no row 'consensu' \(did you mean 'consensus'\?\)"),
        ({"tests": [{"file": "gone.py"}]}, "gone.py: no such file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(evidence, message):
    with pytest.raises(InputError, match=message):
        config(evidence=evidence)
