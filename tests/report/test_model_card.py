"""The model card: numbers with their intervals, and what it says where nothing was tested."""

from huggingface_hub import ModelCard
from report_example import class_results

from negmerge.report.model_card import card

ABOUT = {
    "declared": {"license": "mit", "language": ["en"]},
    "library": "transformers",
    "adapter": None,
    "task": "causal-lm",
    "files": {"model.safetensors": "a" * 64},
    "base": "b" * 64,
    "seed": 0,
    "judged": False,
    "ids": True,
    "finished": "2026-01-02",
    "versions": {"negmerge": "0.1.0"},
}


def results():
    found = class_results()
    found["task"]["evaluated"] = {"forget": 40, "retain": 200}
    found["scores"] = [
        {"name": "forget", "title": "forget", "about": "Forget rows right", "unit": "%", "in_gap": True, "shown": True},
        {"name": "retain", "title": "retain", "about": "Other answers' probability", "unit": "%", "in_gap": True},
        {"name": "loss", "title": "loss", "about": "Loss", "unit": "nat"},
    ]
    for row in (found["base"], found["methods"]["consensus"]):
        row |= {"forget": 5.0, "retain": 57.6742, "loss": 0.0123}
    found["reference"] = None
    return found


def test_counts_have_wilsons_interval_and_means_have_none():
    text = card(results(), "consensus", ABOUT)
    # Of 40 rows 2: Wilson's interval is 1.4 … 16.5 %, as R's binom.confint has it.
    assert "| Forget rows right | 5.0 (1.4 … 16.5; n = 40) | 5.0 (1.4 … 16.5; n = 40) |" in text
    assert "| Other answers' probability | 57.7 (n = 200) | 57.7 (n = 200) |" in text
    assert "| Loss | 0.0123 | 0.0123 |" in text


def test_the_front_matter_is_the_hubs():
    data = ModelCard(card(results(), "consensus", ABOUT)).data
    assert (data.license, data.language, data.library_name) == ("mit", ["en"], "transformers")
    assert data.pipeline_tag == "text-generation"
    assert {one.metric_name: one.metric_type for one in data.eval_results} == {
        "Forget rows right": "accuracy",
        "Other answers' probability": "retain",
        "Loss": "loss",
    }


def test_a_verdict_on_another_row_is_not_claimed():
    found = results()
    found["verdict"] = {"word": "forgotten", "text": "Forgotten: really.", "because": ["depth"]}
    found["evidence"] = {"method": "uniform", "seed": 0, "tests": []}
    text = card(found, "consensus", ABOUT)
    assert "Forgotten: really." not in text and "is on another model (row uniform), not on this" in text
    assert "Rounding of the weights to fewer bits was not tested" in text
    judged = card(found, "consensus", {**ABOUT, "judged": True})
    assert "Forgotten: really. Because of: depth." in judged


def test_a_test_that_was_not_made_is_said_not_to_be():
    found = results()
    found["verdict"] = {"word": "not refuted", "text": "Not refuted.", "because": ["no Retrain"]}
    unread = {"position": None, "low": None, "high": None, "n": 0, "informative": False, "why": "no Retrain"}
    tests = [
        {"name": name, "weight": "refutation", "text": "Not made.", "counted": unread, "readings": [unread]}
        for name in ("quantisation", "relearning")
    ]
    found["evidence"] = {"method": "consensus", "seed": 0, "tests": tests}
    text = card(found, "consensus", {**ABOUT, "judged": True})
    assert "Rounding of the weights to fewer bits was not tested" in text and "Further training was not tested" in text
    tests[0]["readings"] = [{**unread, "n": 40}]
    assert "Rounding of the weights" not in card(found, "consensus", {**ABOUT, "judged": True})


def test_of_the_method_it_says_what_holds_for_any_and_what_was_projected():
    found = results()
    row = found["methods"]["consensus"]
    row["projection"] = {
        "strength": 10.0,
        "layers": [{"before": 0.5, "after": 0.01}],
        "rows": {"retain": {"rows": 600, "about": "retain images"}, "forget": {"rows": 120, "about": "forget images"}},
    }
    text = card(found, "consensus", ABOUT)
    assert "what the method made of these fine-tunings was subtracted" in text and "in common" not in text
    assert "stripped of what it does to 600 retain images" in text


def test_a_model_that_was_trained_anew_is_not_said_to_be_changed():
    found = results()
    found["methods"]["retrain"] = {**found["methods"]["consensus"], "method": "retrain", "alpha": None}
    text = card(found, "retrain", ABOUT)
    assert "was trained anew by the method" in text and "approximate" not in text and "vector" not in text
    assert "It is not in this folder." in text
    plain = card(found, "consensus", ABOUT)
    assert "This is approximate unlearning, not exact" in plain and "None of these is in this folder." in plain
