"""One pass over all parts of both tables gives what separate passes give; a run says first what it will take."""

import json

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.experiment.config import check_config
from negmerge.experiment.measure import Bench
from negmerge.experiment.pipeline import run
from negmerge.experiment.plan import plan
from negmerge.scores import accuracy
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification import task as task_module
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict
from negmerge.tasks.image_classification.preparing import load_data, make_task
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
    store = Store(tmp_path / "data")
    loaded.write(store)
    task = make_task(config.data, config.model, Compute(), store, loaded.described)
    write_state_dict(tmp_path / "model.safetensors", task.start(0).state_dict())
    return task, loaded, tmp_path / "model.safetensors"


def test_two_tables_as_one(material):
    task, loaded, _ = material
    tables = {"train": loaded.source.train, "test": loaded.source.test}
    count = len(tables["train"])
    rows = torch.tensor([count + 3, 0, count, 7, count + 3])
    expected = [("test", 3), ("train", 0), ("test", 0), ("train", 7), ("test", 3)]
    for both in (task.tables.both, loaded.tables.both):
        images, labels = both.take(rows)
        assert torch.equal(images, torch.stack([tables[name].images[row] for name, row in expected]))
        assert labels.tolist() == [int(tables[name].labels[row]) for name, row in expected]
        for some in (torch.tensor([5, 2]), torch.tensor([count + 5, count])):
            assert torch.equal(both.take(some)[1], torch.cat([tables["train"].labels, tables["test"].labels])[some])
    for of_task in (task.rows(), loaded.tables.rows()):
        assert len(of_task) == 1797 and of_task.groups == tables["train"].classes
        assert of_task.fingerprint() == loaded.split.source


def test_all_parts_in_one_pass_equal_each_on_its_own(material, monkeypatch):
    task, loaded, checkpoint = material
    passes, loads = [], []
    whole, load = task_module.observe_parts, Classifier.load
    monkeypatch.setattr(task_module, "observe_parts", lambda *given: passes.append(whole(*given)) or passes[-1])
    monkeypatch.setattr(Classifier, "load", lambda *given: loads.append(given) or load(*given))
    parts = loaded.split.parts(len(loaded.source.train))
    scores = Bench(task, parts, [], 0, "cpu").full_scores(checkpoint)
    assert len(passes) == len(loads) == 1
    model = load(task.classifier, checkpoint)
    for name in ("retain", "forget", "validation", "validation_forget", "test", "test_forget"):
        table = loaded.source.test if name.startswith("test") else loaded.source.train
        part = table.take(getattr(loaded.split, name))
        logits = predict(task.classifier, model, part.images)
        assert torch.equal(passes[0][name]["correct"], logits.argmax(1) == part.labels) and len(part)
        assert scores[name] == accuracy(logits.argmax(1) == part.labels)
    assert scores["membership"] is None and len(scores["per_class"]) == 10


def test_a_run_says_first_what_it_will_take(tmp_path):
    events = []
    run(check_config(TINY), tmp_path / "run", on_event=events.append)
    names = [event["event"] for event in events]
    (place,) = (i for i, name in enumerate(names) if name == "estimate")
    assert "training" not in names[:place] and "training" in names[place:]
    told, planned = events[place], plan(check_config(TINY)).as_json()
    for key in ("training_rows", "pool_rows", "evaluated_rows", "disk", "rows", "members"):
        assert told[key] == planned[key]
    assert 0 < told["minutes"] < 5 and told["training_rows"] == planned["rows"]["retain"] + planned["rows"]["forget"]
    saved = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert any(event["event"] == "estimate" for event in saved)
