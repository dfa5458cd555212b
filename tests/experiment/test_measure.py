"""One pass over all parts of both tables gives what separate passes give; a run says first what it will take."""

import json

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.experiment import measure
from negmerge.experiment.config import check_config
from negmerge.experiment.measure import IN_TEST, IN_TRAIN, Bench
from negmerge.experiment.pipeline import run
from negmerge.experiment.plan import plan
from negmerge.experiment.prepare import load_data
from negmerge.scores import accuracy
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict
from negmerge.tasks.image_classification.store import Store

TINY = {
    "name": "tiny",
    "workers": 1,
    "threads": 1,
    "model": {"family": "small-cnn", "width": 8},
    "data": {"source": "digits", "forget": {"classes": ["3"]}, "validation": {"fraction": 0.1}},
    "base": {"train": {"epochs": 1}},
    "pool": {"grid": {"lr": [1e-3], "epochs": [1]}},
    "methods": ["consensus"],
    "evaluation": {"membership": []},
}


@pytest.fixture
def material(tmp_path):
    config = check_config(TINY)
    loaded = load_data(config.data, config.model)
    source, split = loaded.source, loaded.split
    store = Store(tmp_path / "data")
    tables = {"train": source.train, "test": source.test}
    store.write({name: (table.images, table.labels) for name, table in tables.items()}, {})
    classifier = Classifier("small-cnn", {"width": 8}, 10, (1, 8, 8))
    write_state_dict(tmp_path / "model.safetensors", classifier.build(0).state_dict())
    return store, split, classifier, tmp_path / "model.safetensors", tables


def test_two_tables_as_one(material):
    store, _, _, _, tables = material
    both = store.both()
    count = len(tables["train"])
    rows = torch.tensor([count + 3, 0, count, 7, count + 3])
    images, labels = both.take(rows)
    expected = [("test", 3), ("train", 0), ("test", 0), ("train", 7), ("test", 3)]
    assert torch.equal(images, torch.stack([tables[name].images[row] for name, row in expected]))
    assert labels.tolist() == [int(tables[name].labels[row]) for name, row in expected]
    for some in (torch.tensor([5, 2]), torch.tensor([count + 5, count])):
        assert torch.equal(both.take(some)[1], torch.cat([tables["train"].labels, tables["test"].labels])[some])


def test_all_parts_in_one_pass_equal_each_on_its_own(material, monkeypatch):
    store, split, classifier, checkpoint, tables = material
    passes, loads = [], []
    whole, load = measure.predict_parts, Classifier.load
    monkeypatch.setattr(measure, "predict_parts", lambda *given: passes.append(whole(*given)) or passes[-1])
    monkeypatch.setattr(Classifier, "load", lambda *given: loads.append(given) or load(*given))
    scores = Bench(classifier, store, split, [], 0, "cpu").full_scores(checkpoint)
    assert len(passes) == len(loads) == 1
    model = load(classifier, checkpoint)
    for name in (*IN_TRAIN, *IN_TEST):
        part = tables["train" if name in IN_TRAIN else "test"].take(getattr(split, name))
        logits = predict(classifier, model, part.images)
        together, labels = passes[0][name]
        assert torch.equal(labels, part.labels) and len(labels)
        torch.testing.assert_close(together, logits, atol=1e-5, rtol=1e-5)
        assert scores[name] == accuracy(logits, part.labels)


def test_a_run_says_first_what_it_will_take(tmp_path):
    events = []
    run(check_config(TINY), tmp_path / "run", on_event=events.append)
    names = [event["event"] for event in events]
    (place,) = (i for i, name in enumerate(names) if name == "estimate")
    assert "training" not in names[:place] and "training" in names[place:]
    told, planned = events[place], plan(check_config(TINY)).as_json()
    for key in ("training_images", "pool_images", "evaluated_images", "disk", "rows", "members"):
        assert told[key] == planned[key]
    assert 0 < told["minutes"] < 5 and told["training_images"] == planned["rows"]["retain"] + planned["rows"]["forget"]
    saved = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any(event["event"] == "estimate" for event in saved)
