"""Where what is measured of a row is a probability, evidence goes by its mean, and says so."""

from pathlib import Path

import pytest
import torch

from negmerge.evidence.own_rows import read_own_rows
from negmerge.evidence.protocol import Found
from negmerge.evidence.scale import Reading
from negmerge.evidence.subject import Subject
from negmerge.evidence.tests.relearning import _text


class Answers:
    """A task whose models are the probabilities of their answers; no answer is right word for word but the base's."""

    MEASURE, KNOWN, NOUN = "probability", "confidence", "question"

    def open(self, path, device):
        return {"base": 0.95, "retrain": 0.10, "half": 0.45, "gone": 0.11}[path.name]

    def observe(self, model, parts, columns):
        spread = torch.linspace(-0.05, 0.05, 20, dtype=torch.float64)
        seen = {"confidence": model + spread, "correct": torch.full((20,), model > 0.9)}
        return {part: {name: seen[name] for name in columns[part]} for part in parts}


def own(model):
    roles = {role: Path(name) for role, name in (("base", "base"), ("reference", "retrain"), ("model", model))}
    return read_own_rows(Subject(Answers(), {"forget": torch.arange(20)}, seed=0, **roles))


def test_a_model_that_gives_answers_more_probability_than_retrain_has_not_forgotten_them():
    found, answer = own("half")
    assert answer == "partly" and found.counted.model == pytest.approx(45.0)
    assert found.counted.position == pytest.approx(35 / 85)
    assert found.text == (
        "The answers to the request's own rows have a mean probability of 45.0 % (Retrain 10.0 %, the base 95.0 %)."
    )
    assert own("gone")[1] == "held" and own("base")[1] == "not" and own("retrain")[1] == "held"


def test_what_comes_back_is_told_in_the_words_of_what_is_measured():
    reading = Reading("lr 0.01", 90.0, 10.0, 40.0, 0.4, 0.3, 0.5, 5, "draws", informative=True)
    facts = {"lr 0.01": {"steps": 8, "curves": {"reference": [10.0, 50.0], "base": [90.0, 95.0]}}}
    told = _text(Found((reading,), "", facts), "probability")
    assert "8 steps that Retrain needs to know the others half as well as the base" in told and "right" not in told
    assert "it gives the others a mean probability of 40 % on the way (Retrain 10 %, the base 90 %)" in told
    assert "needs to get half of them right" in _text(Found((reading,), "", facts), "")
