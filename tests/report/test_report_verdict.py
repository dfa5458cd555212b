"""The verdict follows the numbers, whichever way they go."""

import pytest
from report_example import class_results, random_results, seeds_results

from negmerge.report.asking import asked
from negmerge.report.comparison import compare, main_method
from negmerge.report.remaining import lost
from negmerge.report.verdict import judge


def changed(results, name="consensus", **numbers):
    results["methods"][name] |= numbers
    return results


def test_without_tests_of_the_claim_success_is_not_green():
    verdict = judge(class_results())
    assert verdict.tone == "mixed"
    assert (
        verdict.headline.replace("\xa0", " ")
        == "The model no longer recognises class “3” and kept 95.7 % of its accuracy on the rest."
    )
    assert verdict.comparison.startswith("It did better than uniform (forget 11.2 against 1.9")
    assert "one of them is 0.8 points" in verdict.sentences[-1]


def test_probabilities_are_not_called_accuracy():
    results = class_results()
    results["task"] |= {"measure": "probability", "noun": "question"}
    for verdict in (judge(results), judge(changed(results, forget=60.0)), judge(changed(results, retain=10.0))):
        said = " ".join([verdict.headline, *verdict.sentences])
        assert "accuracy" not in said and " right" not in said.replace("right answers", "")
        assert "The right answers to the questions it was asked to forget now have a mean probability of" in said


@pytest.mark.parametrize(
    ("forget", "words", "tone"),
    [
        (3.0, "no longer recognises class", "mixed"),
        (9.0, "forgot most of class", "mixed"),  # of 129 rows, where of 129 unseen ones none is right
        (40.0, "forgot most of class", "mixed"),
        (80.0, "forgot only part of class", "bad"),
        (97.0, "did not forget class", "bad"),
    ],
)
def test_how_much_was_forgotten(forget, words, tone):
    results = changed(class_results(), forget=forget)
    results["methods"] = {"consensus": {**results["methods"]["consensus"], "test_forget": 0.0}}
    results["task"]["rows"]["test_forget"] = 129
    verdict = judge(results)
    assert words in verdict.headline and verdict.tone == tone


@pytest.mark.parametrize(("unseen", "words"), [(6.0, "no longer recognises class"), (0.0, "forgot most of class")])
def test_without_retrain_unseen_rows_are_the_bar(unseen, words):
    results = changed(class_results(), forget=9.0, test_forget=unseen)
    results["reference"] = None
    assert words in judge(results).headline


def test_damage_to_the_rest_is_called_so():
    verdict = judge(changed(class_results(), retain=60.0))
    assert verdict.tone != "good"
    assert "but damaged the rest, from 99.6\xa0% to 60.0\xa0% right" in verdict.headline
    assert "did better than consensus" in verdict.comparison
    assert "it held the retain floor" in verdict.comparison


def test_little_damage_is_no_damage():
    assert judge(changed(class_results(), retain=99.2)).headline.endswith("and kept the rest.")


def test_a_better_method_is_named():
    verdict = judge(changed(changed(class_results(), forget=12.0), "uniform", forget=0.0, retain=98.0))
    assert verdict.tone == "mixed"
    assert "uniform (forget 0.0 against 12.0, retain 98.0 against 95.3)" in verdict.comparison
    assert "did better than consensus" in verdict.comparison


def test_many_methods_are_not_listed_with_their_numbers():
    results = random_results()
    uniform, single = results["methods"]["uniform"], results["methods"]["best-single"]
    for i in range(3):
        results["methods"] |= {f"above-{i}": {**uniform, "label": ""}, f"below-{i}": {**single, "label": ""}}
    assert judge(results).comparison == (
        "Here uniform, above-0, above-1 and above-2 did better than consensus. "
        "Against the other 4 methods consensus came out ahead."
    )


def test_small_differences_are_none():
    verdict = judge(changed(class_results(), "uniform", forget=1.2, retain=95.4))
    assert "There is no clear difference between consensus and uniform" in verdict.comparison


def test_the_spread_of_the_seeds_counts():
    results = seeds_results()
    assert "best-single" in judge(results).comparison
    results["methods"]["uniform"]["std"]["forget"] = 20.0
    assert compare(results, results["methods"]["uniform"], results["methods"]["consensus"])[0] == 0


def test_random_forgetting_is_judged_by_the_gap():
    verdict = judge(random_results())
    assert "came only part of the way" in verdict.headline and verdict.tone == "mixed"
    assert "Here uniform (gap 6.3 against 10.3) did better than consensus." in verdict.comparison
    assert "Against best-single (gap 11.3 against 10.3) consensus came out ahead." in verdict.comparison
    verdict = judge(changed(random_results(), gap=1.1))
    assert "much more like one that never saw" in verdict.headline and verdict.tone == "mixed"
    verdict = judge(changed(random_results(), gap=15.6))
    assert "no closer than before" in verdict.headline and verdict.tone == "bad"
    assert "further than before" in judge(changed(random_results(), gap=30.0)).headline


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        (76.0, "nearly like unseen ones"),
        (50.0, "forgot too much"),
        (86.0, "came only part of the way"),
        (99.0, "still knows the chosen images better"),
    ],
)
def test_random_forgetting_without_a_reference_aims_at_unseen_images(forget, words):
    results = changed(random_results(), forget=forget, test=75.9)
    results["reference"] = None
    for row in (results["base"], *results["methods"].values()):
        row |= {"gap": None, "gap_parts": None}
    verdict = judge(results)
    assert words in verdict.headline
    assert "no retrained model in this run" in " ".join(verdict.sentences)


def test_retraining_is_no_competitor():
    results = random_results()
    results["methods"]["retrain"] = {**results["reference"], "kind": "train", "method": "retrain", "gap": 0.0}
    assert "retrain (" not in judge(results).comparison


def test_the_main_method():
    results = class_results()
    assert main_method(results) == "consensus"
    results["methods"]["mine"] = {**results["methods"].pop("consensus"), "method": "consensus"}
    assert main_method(results) == "mine"
    del results["methods"]["mine"]
    assert main_method(results) == "uniform"
    assert main_method({"methods": {}}) is None


def test_two_rows_of_twelve_are_no_forgetting():
    results = changed(random_results(), forget=1000 / 12, test=100.0, gap=None)
    results["reference"], results["task"]["rows"]["forget"] = None, 12
    results["base"] |= {"forget": 100.0, "test": 100.0, "gap": None}
    verdict = judge(results)
    assert "like unseen ones before already: accuracy cannot tell" in verdict.headline and verdict.tone == "mixed"


def test_rows_that_somebody_chose_may_be_unlike_the_unseen_ones():
    found = random_results()
    found["reference"] = None
    for row in (found["base"], *found["methods"].values()):
        row |= {"gap": None, "gap_parts": None}
    drawn = " ".join(judge(found).sentences)
    found["task"]["kind"] = "rows"
    chosen = " ".join(judge(found).sentences)
    assert "look whether they are" in chosen and "look whether they are" not in drawn


def test_rows_that_the_original_knew_as_well_do_not_say_how_far_to_go():
    """Without --unseen rows a tenth of those to keep is held out, though the model may know them."""
    found = random_results()
    found["reference"] = None
    found["task"] |= {"kind": "rows", "measure": "probability", "noun": "question"}
    for row in (found["base"], *found["methods"].values()):
        row |= {"gap": None, "gap_parts": None}
    found["base"] |= {"forget": 86.0, "test": 90.8}
    found["methods"]["consensus"] |= {"forget": 40.0, "test": 85.0}
    verdict = judge(found)
    said = " ".join([verdict.headline, *verdict.sentences])
    assert (
        "now knows the chosen questions less well than held-out ones, which it knew as well before" in verdict.headline
    )
    assert "too much" not in said and "As low as possible" not in said and "cannot tell" in said


def held_out(forget):
    """Results of questions without Retrain, tested on questions that were held out of those to keep."""
    results = random_results()
    about = {"kind": "rows", "noun": "question", "measure": "probability", "test_is": "held out"}
    results["task"], results["reference"] = {**results["task"], **about}, None
    name = main_method(results)
    results["base"] |= {"forget": 80.0, "test": 82.0, "retain": 84.0, "gap": None}
    for row in results["methods"].values():
        row |= {"gap": None, "gap_parts": None}
    results["methods"][name] |= {"forget": forget, "test": 79.0, "retain": 83.5}
    return results


@pytest.mark.parametrize(
    ("forget", "words"),
    [
        (1.0, "knows hardly anything any more of the chosen questions"),
        (30.0, "forgot most of the chosen questions"),
        (60.0, "forgot only part of the chosen questions"),
        (79.0, "still knows the chosen questions about as well as before"),
    ],
)
def test_held_out_rows_that_the_model_may_know_are_not_called_unseen(forget, words):
    results = held_out(forget)
    found = judge(results)
    said = " ".join([found.headline, *found.sentences])
    assert words in found.headline and "like unseen ones" not in said and "than unseen ones" not in said
    assert "on held-out questions that the model may know 79.0" in said
    assert "held-out questions of what stays that the model may know" in " ".join(
        lost(results, results["methods"][main_method(results)])
    )
    assert "though the model may know them" in dict(asked(results))["Set aside"]
