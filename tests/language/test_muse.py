"""MUSE and other data sets of the hub, from local folders of the same form."""

import pickle

import pytest
import yaml
from tiny_language import facts, save
from tiny_language import write as write_rows

from negmerge.errors import InputError
from negmerge.tasks.causal_lm import preparing
from negmerge.tasks.causal_lm.sources import hub, muse
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig

datasets = pytest.importorskip("datasets")


def write(folder, configs):
    """A folder in the form of a data set of the hub: of each config its splits, of each split its columns."""
    folder.mkdir()
    card = []
    for config, splits in configs.items():
        files = []
        for split, columns in splits.items():
            place = folder / config / f"{split}.parquet"
            place.parent.mkdir(exist_ok=True)
            datasets.Dataset.from_dict(columns).to_parquet(place)
            files.append({"split": split, "path": f"{config}/{split}.parquet"})
        card.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': card})}---\n")
    return str(folder)


def test_texts_are_forgotten_and_questions_on_them_are_scored(tmp_path):
    texts = {name: {"text": [f"{name} {i}" for i in range(4)]} for name in ("forget", "retain1", "holdout")}
    questions = {
        f"{part}_qa{kind}": {"question": [f"{part}{kind}?"] * 2, "answer": ["Yes.", "No."]}
        for part in ("forget", "retain")
        for kind in ("", "_icl")
    }
    path = write(tmp_path / "muse", {"raw": texts, "knowmem": questions})
    found = muse.load(muse.Settings(path=path, most=3))
    assert found.train.answers == tuple(f"{name} {i}" for name in ("forget", "retain1") for i in range(3))
    assert [found.train.classes[label] for label in found.train.labels] == ["forget"] * 3 + ["retain"] * 3
    assert found.train.prompts == (None,) * 6 and found.test.answers == ("holdout 0", "holdout 1", "holdout 2")
    assert set(found.further) == {"forget_knowledge", "retain_knowledge"}
    shot = "forget_icl?\nAnswer: Yes.\n\nQuestion: forget_icl?\nAnswer: No.\n\nQuestion: forget?"
    assert found.further["forget_knowledge"].prompts == (shot, shot)
    bare = muse.load(muse.Settings(path=path, most=3, shots=False))
    assert bare.further["forget_knowledge"].prompts == ("forget?", "forget?")
    with pytest.raises(InputError, match=r"raw: forget has no column 'text'"):
        bad = {name: {"body": ["a"]} for name in texts}
        muse.load(muse.Settings(path=write(tmp_path / "bad", {"raw": bad}), knowledge=False))


def test_a_data_set_of_the_hub_has_questions_by_their_columns(tmp_path):
    rows = {"question": ["a?", "b?"], "answer": ["A", "B"], "topic": ["x", "y"]}
    path = write(tmp_path / "data", {"default": {"train": rows, "test": rows}})
    found = hub.load(hub.Settings(path=path))
    assert found.train.prompts == ("a?", "b?") and found.test.classes == ("x", "y")
    with pytest.raises(InputError, match="has no column 'q'"):
        hub.load(hub.Settings(path=path, columns={"prompt": "q"}))


def test_texts_are_called_passages_and_answer_nothing(tmp_path):
    save(tmp_path / "model")
    text = [{"text": f"{row['question']} {row['answer']}"} for row in facts(12)]
    for rows, noun, words in (
        (text, "passage", "Forget passages’ probability"),
        (facts(12), "question", "Forget answers’"),
    ):
        path = write_rows(tmp_path / "rows.jsonl", rows)
        data = DataConfig(source="table", path=str(path), forget={"fraction": 0.2})
        model = ModelConfig(family="hf", path=str(tmp_path / "model"))
        loaded = preparing.load_data(data, model)
        task = preparing.make_task(data, model, Compute(), loaded.tables, loaded.described)
        assert task.NOUN == pickle.loads(pickle.dumps(task)).NOUN == noun
        assert task.scores[0].about.startswith(words)
