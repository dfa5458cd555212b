"""Groups of a language model may be matched with unseen rows, where there are some that the base never saw."""

import pytest
from tiny_language import config_of, facts, save, write

from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import load_unwritten
from negmerge.report.comparison import erases


@pytest.fixture
def given(tmp_path):
    """A config on a base that was given, of facts about four authors and twelve unseen ones."""
    save(tmp_path / "model")
    write(tmp_path / "facts.jsonl", facts(16))
    write(tmp_path / "unseen.jsonl", facts(12, seed=1))
    pool = {"adapter": {"r": 2}, "train": {"batch_size": 4}, "grid": {"lr": [1e-3], "epochs": [1]}}
    about = {"base": {"pretrained": True}, "reference": None, "pool": pool, "evaluation": {}}
    return config_of(tmp_path, selection={"objective": "match-holdout"}, **about)


def test_validation_rows_that_the_base_may_know_are_refused(given):
    with pytest.raises(InputError, match=r"match-holdout needs validation rows that the base never saw.*of: test"):
        check_config(given)
    for data in ({"train_rows": [0, 12]}, {"validation": {"fraction": 0.5, "of": "test"}}):
        assert check_config({**given, "data": {**given["data"], **data}}).selection.objective == "match-holdout"
    assert check_config({**given, "base": {"train": {"epochs": 1}}}).selection.objective == "match-holdout"


def test_a_share_of_the_test_table_is_held_out_for_choosing(given):
    data = {**given["data"], "validation": {"fraction": 0.5, "of": "test"}}
    plain = load_unwritten(check_config({**given, "selection": {}}))
    material = load_unwritten(check_config({**given, "data": data}))
    sizes = material.split.describe()
    assert sizes["retain"] + sizes["forget"] == 16 and sizes["forget"] == 4
    assert sizes["validation"] + sizes["validation_forget"] == 6 == sizes["test"] + sizes["test_forget"]
    text, task = material.task.reader.sequences.text, plain.task
    unseen = {task.reader.sequences.text(row) for row in range(16, 28)}
    found = {part: {text(row) for row in material.parts[part].tolist()} for part in material.parts}
    assert found["validation"] | found["validation_forget"] | found["test"] | found["test_forget"] == unseen
    assert not unseen & (found["retain"] | found["forget"])
    for wrong, words in (
        ({"train_rows": [0, 12]}, "leave data.train_rows out"), ({"test": None}, "give test: FILE"),
        ({"validation": {"fraction": 0.99, "of": "test"}}, "leave none to test on"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            load_unwritten(check_config({**given, "data": {**data, **wrong}}))
    digits = {"source": "digits", "forget": {"classes": ["3"]}, "validation": {"of": "test"}}
    images = {**given, "task": "image-classification", "model": {"family": "small-cnn"}, "data": digits}
    images = {**images, "pool": {"grid": {"lr": [1e-3]}}, "base": {"train": {"epochs": 1}}, "selection": {}}
    with pytest.raises(InputError, match="of: test is for language models"):
        load_unwritten(check_config(images))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about a name that peft still uses
def test_an_author_is_matched_with_unseen_ones(given, tmp_path):
    pytest.importorskip("peft")
    data = {**given["data"], "validation": {"fraction": 0.5, "of": "test"}}
    results = run(check_config({**given, "data": data}), tmp_path / "run")
    assert results["methods"]["uniform"]["curve"][0]["holdout"] >= 0.0 and not erases(results)
