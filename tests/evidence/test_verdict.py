"""The rules of the verdict, one by one."""

import pytest

from negmerge.evidence.own_rows import own_without_reference
from negmerge.evidence.protocol import Found
from negmerge.evidence.scale import Reading
from negmerge.evidence.verdict import Answer, decide


def answer(name, low, weight="probe", informative=True, beyond=False, bar=0.1):
    position = low + 0.05
    reading = Reading("x", 1.0, 0.0, position, position, low, low + 0.1, 9, "rows", informative, "", beyond, bar)
    return Answer(name, weight, Found((reading,), ""))


@pytest.mark.parametrize(
    ("own", "answers", "word", "because"),
    [
        ("not", [answer("depth", 0.0)], "not", "own rows"),
        ("partly", [answer("depth", 0.0)], "partly", "own rows"),
        ("nothing", [answer("depth", 0.0)], "can't tell", "no better"),
        ("held", [answer("depth", 0.0), answer("offset", -0.4)], "forgotten", "depth"),
        ("held", [answer("depth", 0.11)], "suppressed", "depth"),
        ("held", [answer("depth", 0.11, bar=0.2)], "forgotten", "depth"),
        ("held", [answer("depth", 0.9, informative=False)], "can't tell", "no test"),
        ("held", [answer("quantisation", 0.0, "refutation")], "can't tell", "no test"),
        ("held", [answer("quantisation", 0.3, "refutation"), answer("depth", 0.0)], "suppressed", "quantisation"),
        ("held", [answer("three-sample", 0.9, "description"), answer("depth", 0.0)], "forgotten", "depth"),
        ("held", [answer("offset", -9.0, informative=False, beyond=True), answer("depth", 0.0)], "too far", "offset"),
        ("too far", [answer("depth", 0.0)], "too far", "own rows"),
        ("too far", [answer("depth", 0.5)], "suppressed", "depth"),
        ("held", [], "can't tell", "no test"),
    ],
)
def test_the_word_and_its_reason(own, answers, word, because):
    found = decide(own, answers, rows="images")
    assert found.word == word and any(because in reason for reason in found.because)
    assert "{" not in found.text and "rows" not in found.text.replace("own rows", "")


def test_without_retrain_it_is_never_better_than_not_refuted():
    assert decide("held", [answer("depth", 0.0)], reference=False).word == "not refuted"
    assert decide("partly", [], reference=False).word == "partly"


@pytest.mark.parametrize(
    ("base", "model", "unseen", "erased", "own"),
    [
        (100.0, 0.0, 0.0, True, "held"),
        (0.0, 0.0, 0.0, True, "nothing"),
        (100.0, 8.0, 0.0, True, "partly"),
        (100.0, 40.0, 40.0, True, "partly"),
        (100.0, 95.0, 95.0, True, "not"),
        (100.0, 80.0, 79.0, False, "held"),
        (100.0, 92.0, 79.0, False, "partly"),
        (100.0, 99.0, 79.0, False, "not"),
        (100.0, 60.0, 79.0, False, "too far"),
        (80.0, 79.0, 79.0, False, "nothing"),
    ],
)
def test_unseen_rows_in_the_place_of_retrain(base, model, unseen, erased, own):
    assert own_without_reference(base, model, unseen, (1000, 1000), erased) == own


def test_the_reading_that_counts_lies_furthest_above_its_bar():
    low, high, silent = (answer("x", place).found.readings[0] for place in (0.0, 0.3, 0.9))
    silent = Reading(**{**silent.__dict__, "informative": False})
    assert Found((silent, low, high), "").counted is high
    assert Found((silent,), "").counted is silent


def test_unseen_rows_may_stand_for_retrain_at_both_ends():
    def word(position, own="held", both_ends=True):
        return decide(own, [answer("membership", position)], reference=False, both_ends=both_ends, rows="images")

    assert word(0.0).word == "forgotten" and "as far as unseen images tell" in word(0.0).text
    assert word(0.6).word == "suppressed" and word(0.0, own="partly").word == "partly"
    assert word(0.0, both_ends=False).word == "not refuted" and word(0.6, both_ends=False).word == "suppressed"
    assert decide("held", [answer("x", 0.0, "refutation")], reference=False, both_ends=True).word == "not refuted"


@pytest.mark.parametrize("own", ["not", "partly", "nothing", "held", "too far"])
@pytest.mark.parametrize("both_ends", [True, False])
def test_nothing_is_compared_with_a_retrain_that_there_is_not(own, both_ends):
    found = decide(own, [answer("x", 0.0)], reference=False, both_ends=both_ends, rows="questions")
    said = " ".join([found.text, *found.because])
    assert "than Retrain" not in said and "as Retrain does" not in said and "one that never saw" not in said
    assert ("unseen ones" in said) == (both_ends and own in ("partly", "nothing", "too far"))
