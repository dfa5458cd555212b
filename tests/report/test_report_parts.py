"""The parts of the page that somebody signs, in their order, and what stands behind them; runs side by side."""

import hashlib
import json
import re

import pytest
from report_example import class_results, random_results, record, write_run
from test_report_page import Page
from typer.testing import CliRunner

from negmerge.cli import app
from negmerge.errors import InputError
from negmerge.report import write_comparison, write_report
from negmerge.report.asking import named
from negmerge.report.detail import cost_figure, lottery_section, matrix_section
from negmerge.report.evidence import deciding, lines_of, plain
from negmerge.report.figures.answers import pick
from negmerge.report.remaining import changes_of, limits, lost

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsVnMTAAAAABJRU5ErkJggg=="


def reading(position, half=0.05, **about):
    known = {"low": position - half, "high": position + half, "informative": True, "passes": position <= 0.1}
    return {"name": "x", "position": position, "bar": 0.1, "controls": [0.02], "why": "", "n": 60, **known, **about}


def found_by(name, position, weight="probe", **about):
    one = reading(position, **about)
    text = "Retrain has 5 %, the base 99 %."
    return {
        "name": name,
        "weight": weight,
        "text": text,
        "counted": one,
        "readings": [one],
        "facts": {},
        "seconds": 1.0,
    }


def judged(word="suppressed", because=("relearning",)):
    """Results with evidence, answers, examples, a matrix and a lottery."""
    results = {**class_results(), "reference": {**class_results()["base"], "forget": 0.0}}
    silent = reading(0.4, 0.3, informative=False, why="the interval is wider than half the scale")
    offset = {**found_by("offset", 0.4), "counted": silent, "readings": [silent]}
    tests = [found_by("own-rows", 0.0, "description"), found_by("relearning", 0.5), offset]
    results["evidence"] = {"method": "consensus", "seed": 0, "own": "held", "controls": 2, "tests": tests}
    results["verdict"] = {"word": word, "text": f"{word}: what it says.", "because": list(because)}
    results["request"] = {"requester": "A. Person", "reason": "article 17", "reviewer": "R. Eader", "case_number": "7"}
    counts = {"base": [0, 10], "model": [9, 1], "reference": [10, 0]}
    example = {"part": "test_forget", "group": "3", "base": "3", "model": "9", "reference": "9", "image": PIXEL}
    text = {"part": "test", "group": "1", "base": "1", "model": "1", "text": "<b>a text</b>"}
    results["shown"] = {
        "method": "consensus",
        "answers": [{"part": "forget", "rows": 10, "labels": ["9", "3"], **counts}],
        "examples": [example, text],
        "matrix": {"name": "6.weight", "shape": [2, 4], "kept": 3, "signs": ["+-..", "...+"]},
        "lottery": [
            {"member": "000", "alpha": 1.0, "forget": 5.0, "retain": 96.0},
            {"member": "001", "alpha": 2.0, "forget": 0.0, "retain": 99.0},
        ],
    }
    return results


def page_of(place, results, recorded=None):
    return write_report(write_run(place, results, recorded)).read_text(encoding="utf-8")


def test_the_parts_stand_in_the_order_in_which_somebody_decides(tmp_path):
    page = Page(page_of(tmp_path, judged()))
    parts = [one for one in page.ids if one in ("request", "verdict", "evidence", "lost", "remains", "sign", "details")]
    assert parts == ["request", "verdict", "evidence", "lost", "remains", "sign", "details"]
    assert "script" not in page.tags
    for said in (
        "A. Person",
        "article 17",
        "Case number",
        "What decided is the test “relearning”",
        "0.50 (0.45 … 0.55)",
    ):
        assert said in page.text, said
    assert "treat the model as one that still holds these images" in page.text
    assert "the retrained model has 5 %, the model from before 99 %" in page.text.lower()


def test_the_file_to_sign_for_has_the_hash_that_sha256sum_finds(tmp_path):
    model = tmp_path / "methods/consensus/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    assert hashlib.sha256(b"weights").hexdigest() in page_of(tmp_path, judged())
    model.unlink()
    assert "nothing to sign for" in page_of(tmp_path, judged())


def test_days_of_the_run_stand_beside_the_request(tmp_path):
    days = {"started": "2026-11-25T23:50:00Z", "finished": "2026-11-26T00:10:00Z"}
    assert "2026-11-25 to 2026-11-26" in page_of(tmp_path, judged(), {**record(), **days})


def test_the_forgotten_are_named_and_many_are_counted():
    rows = [{"row": i, "id": f"photo{i}.png"} for i in range(14)]
    assert named(rows[:2]) == "photo0.png and photo1.png"
    assert named(rows).endswith("photo11.png and 2 more")
    assert named([{"row": 7, "id": "7"}]) == "row 7" and named([]) == ""


def test_damage_is_listed_worst_first_and_the_forgotten_last():
    results = class_results()
    changes = changes_of(results, results["methods"]["consensus"])
    drops = [one.before - one.after for one in changes[:-1]]
    assert drops == sorted(drops, reverse=True) and changes[-1].forgotten
    assert "Most was lost by “9” (from 94.9\xa0% to 90.2\xa0%)" in lost(results, results["methods"]["consensus"])[-1]


def test_of_texts_probabilities_are_told_and_nothing_is_called_right(tmp_path):
    results = class_results()
    results["task"] |= {"measure": "probability", "noun": "question", "by_group": ["retain", "forget"]}
    row = results["methods"]["consensus"]
    said = lost(results, row)
    assert said[0].startswith("The right answers to the questions to keep had a mean probability of 99.6\xa0% before")
    assert "Of 9 groups to keep" in said[-1] and not [one for one in said if " were right" in one]
    text = Page(page_of(tmp_path, results)).text
    assert (
        "Each line is a group" in text and "the mean probability of the right answers to its questions before" in text
    )
    for wrong in ("accuracy", "class,", "are right now", "are right before"):
        assert wrong not in text.replace("classifier", ""), wrong
    results["task"]["classes"], row["per_class"], results["base"]["per_class"] = ["all"], [90.0], [95.0]
    assert changes_of(results, row) == [] and len(lost(results, row)) == 2  # one group of all rows says nothing more


def test_limits_risks_and_files_are_told(tmp_path):
    disk = [{"path": "base/model.safetensors", "what": "the model before unlearning: it knows what was forgotten"}]
    text = Page(page_of(tmp_path, judged(), {**record(), "on_disk": disk})).text
    for said in ("no proof of deletion", "1 could not tell here (offset)", "The model from before still exists",
                 "To remove rather than hide", "base/model.safetensors"):  # fmt: skip
        assert said in text, said
    bare = Page(page_of(tmp_path / "bare", class_results())).text
    assert "No test tried to bring the forgotten rows back" in bare and "no test of the claim was made" in bare


def test_answers_examples_matrix_and_lottery_have_their_pictures(tmp_path):
    html = page_of(tmp_path, judged())
    page = Page(html)
    labels = " ".join(image["aria-label"] for image in page.images)
    for said in ("9: before 0.0", "now 90.0", "corner of 6.weight", "37.5", "member alone"):
        assert said in labels, said
    assert f"data:image/png;base64,{PIXEL}" in html and 'alt="A test image of “3”"' in html
    assert "&lt;b&gt;a text" in html and "img-src data:" in html
    assert "1 of the 2 do better" in page.text


def test_a_lottery_ticket_that_is_better_is_counted():
    results = judged()
    found = lottery_section(results, "consensus")
    assert (found["count"], found["no_better"]) == (2, 1)  # merged: 1.9 and 95.2 as selection saw it
    results["shown"]["lottery"][1]["forget"] = 50.0
    assert lottery_section(results, "consensus")["no_better"] == 2
    results["shown"]["matrix"] |= {"kept": 8}
    assert matrix_section(results) is None  # nothing was filtered


def test_cost_is_left_out_where_it_says_nothing():
    results = random_results()
    assert cost_figure(results, "consensus") is not None
    for row in results["methods"].values():
        row["seconds"] = 40.0
    assert cost_figure(results, "consensus") is None


def test_answers_that_nobody_gave_are_left_out():
    assert pick(["a", "b", "c"], {"base": [0, 90, 0], "model": [10, 0, 0]}) == [1, 0]


@pytest.mark.parametrize(
    ("because", "title"), [(["relearning"], "relearning"), (["no test tells"], "own rows"), (["own rows"], "own rows")]
)
def test_the_verdict_names_the_test_that_decided(because, title):
    assert deciding(judged(because=because)).title == title


def test_lines_are_put_into_plain_words():
    assert plain("Retrain's 2 %. Retrain 3 %, the base's 4 %") == (
        "The retrained model's 2 %. The retrained model 3 %, the model from before's 4 %"
    )
    assert plain("there is no Retrain model to compare with") == "there is no retrained model to compare with"


def test_runs_lie_side_by_side(tmp_path):
    write_run(tmp_path / "a", judged())
    write_run(tmp_path / "b", {**random_results(), "name": "<other>"})
    html = write_comparison([tmp_path / "a", tmp_path / "b"], tmp_path / "out" / "c.html").read_text()
    page = Page(html)
    assert "script" not in page.tags and "<other>" not in html
    assert "Suppressed".lower() in page.text.lower() and "not tested" in page.text and "not made" in page.text
    assert all(len(image["aria-label"]) > 40 for image in page.images) and len(page.ids) == len(set(page.ids))
    assert re.search(r"99\.3 → 1\.9", page.text)


def test_side_by_side_wants_two_runs_once_each(tmp_path):
    write_run(tmp_path, judged())
    with pytest.raises(InputError, match="give two runs at least"):
        write_comparison([tmp_path], tmp_path / "c.html")
    with pytest.raises(InputError, match="is named twice"):
        write_comparison([tmp_path, tmp_path / "."], tmp_path / "c.html")
    with pytest.raises(InputError, match=r"results\.json does not exist"):
        write_comparison([tmp_path, tmp_path / "no"], tmp_path / "c.html")


def test_the_command_compares_and_refuses_what_does_not_go_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(tmp_path / name, {**judged(), "name": name})
    run = CliRunner().invoke
    assert run(app, ["report", "--compare", "a", "b"]).exit_code == 0 and (tmp_path / "compare.html").is_file()
    assert isinstance(run(app, ["report", "a", "b"]).exception, InputError)
    assert isinstance(run(app, ["report", "--compare", "--table", "a", "b"]).exception, InputError)


def test_results_of_before_still_make_a_page(tmp_path):
    old = json.loads(json.dumps(judged()))
    for key in ("shown", "request", "evidence", "verdict", "scores"):
        old.pop(key, None)
    text = Page(page_of(tmp_path, old)).text
    assert "What was lost" in text and "The lottery" not in text and "What the model says now" not in text


def test_a_test_that_finds_something_is_not_shown_as_too_much_gone():
    reading = {"position": 0.5, "low": 0.4, "high": 0.6, "informative": True, "passes": False, "beyond": False, "n": 9}
    other = {**reading, "informative": False, "beyond": True}
    test = {"name": "offset", "weight": "probe", "text": "x", "counted": reading, "readings": [reading, other]}
    found = {**judged(), "evidence": {"method": "consensus", "own": "held", "tests": [test]}}
    assert [line.answer for line in lines_of(found)] == ["found again"]


def test_what_was_trained_anew_is_not_called_approximate_and_no_verdict_is_claimed_without_one():
    found = {**class_results(), "verdict": None, "evidence": None}
    assert "approximate unlearning. It is no proof" in limits(found)[0]
    row = {**found["methods"]["consensus"], "method": "sisa"}
    assert "was trained anew without these" in limits({**found, "methods": {"sisa": row}})[0]


def test_the_whole_curve_of_relearning_is_drawn_where_it_is_known(tmp_path):
    found = judged()
    curves = {"base": [100.0, 100.0, 100.0], "model": [0.0, 40.0, 75.0], "reference": [0.0, 10.0, 50.0]}
    found["evidence"]["tests"][1]["facts"] = {"x": {"steps": 6, "every": 3, "curves": curves}}
    page = page_of(tmp_path, found)
    said = (
        "right, from the start to 6 steps of training: before 100 % to 100 %, now 0 % to 75 %, retrained 0 % to 50 %."
    )
    assert said in page
    assert "the 6 steps until it has half of what the model had before, or as many as the test allows (x)" in page
    for broken in ({}, {**curves, "model": []}, {**curves, "base": "all"}):
        found["evidence"]["tests"][1]["facts"] = {"x": {"curves": broken}}
        assert "How fast it comes back" not in page_of(tmp_path, found)


def test_own_rows_decide_by_chance_and_not_by_the_bar(tmp_path):
    found = judged("partly", because=("the request's own rows",))
    found["evidence"]["own"] = "partly"
    page = page_of(tmp_path, found)
    assert "What decided are the request’s own images, at" in page and "it passes where" not in page
    assert "More of them are right than chance explains in a retrained model." in page


def test_without_a_retrained_model_nothing_is_said_of_what_one_answers(tmp_path):
    results = {**class_results(), "reference": None}
    told = {"part": "forget", "prompt": "Who?", "right": "Ann.", "before": "Ann.", "after": "Bob."}
    results["said"] = {"method": "consensus", "rows": [told, {**told, "part": "retain"}]}
    text = Page(page_of(tmp_path / "alone", results)).text
    (section,) = re.findall(r"What the models answer.*?To be kept.*?Bob\.", text, re.DOTALL)
    assert "etrained" not in section and "None" not in section
    results["said"]["rows"] = [{**one, "reference": ""} for one in results["said"]["rows"]]
    assert "Retrained" in Page(page_of(tmp_path / "both", results)).text.split("What the models answer")[1][:400]


def test_one_member_agrees_with_nobody_and_is_no_noise(tmp_path):
    results = class_results()
    results["pool"] |= {"members": results["pool"]["members"][:1], "chance": 1.0, "consensus": 1.0, "cosine": [[1.0]]}
    text = Page(page_of(tmp_path, results)).text
    for wrong in ("by chance", "noise", "1 copies", "copies agree", "each with other settings"):
        assert wrong not in text, wrong
    assert "A copy of the model was trained further" in text and "One copy of the original model" in text


def test_passages_are_no_questions_and_have_no_right_answers(tmp_path):
    results = class_results()
    results["task"] |= {"measure": "probability", "noun": "passage", "by_group": ["retain", "forget"]}
    told = {"part": "forget", "prompt": "", "right": "and so on", "before": "and", "after": "or"}
    results["said"] = {"method": "consensus", "rows": [told, {**told, "part": "retain"}]}
    text = Page(page_of(tmp_path, results)).text
    assert "right answers" not in text and "question" not in text and "What the models answer" not in text
    said = lost(results, results["methods"]["consensus"])
    assert said[0].startswith("The passages to keep had a mean probability of 99.6\xa0% before")
    assert "the mean probability of its passages before" in text
