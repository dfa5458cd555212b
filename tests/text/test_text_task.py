"""Text classification: padding changes no number, any classifier of transformers, and a whole run."""

import csv
import pickle
from pathlib import Path

import pytest
import torch
from tiny_models import rows, run_of_texts, save

from equal_forgetting import retain_loss
from negmerge.checkpoints import read_state_dict
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.experiment.prepare import prepare
from negmerge.experiment.rundir import RunDir
from negmerge.record.statement import flattened
from negmerge.tasks.columns import COLUMNS
from negmerge.tasks.compute import Compute
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.tasks.text_classification import preparing
from negmerge.training import TrainSettings


def write(folder, **parts):
    folder.mkdir(exist_ok=True)
    for name, found in parts.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(found)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("texts"), train=rows(120), test=rows(45, seed=1))


def make(data, **model):
    config = DataConfig(source="csv", path=str(data), forget={"classes": ["food"]})
    loaded = preparing.load_data(config, ModelConfig(**model))
    return preparing.make_task(config, ModelConfig(**model), Compute(), loaded.tables, loaded.described)


def models(folder):
    return [
        {"family": "small-transformer", "width": 16, "vocabulary": 64},
        *({"family": "hf", "path": str(save(folder / kind, kind))} for kind in ("bert", "roberta", "gpt2")),
        {"family": "hf", "path": str(save(folder / "no padding token", "gpt2", pad=False))},
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_padded_batch_gives_the_numbers_of_single_rows(data, tmp_path, number):
    task = make(data, **models(tmp_path)[number])
    model = task.start(0).eval()
    with torch.no_grad():  # weights so large that what is padded would show
        for value in model.parameters():
            value.mul_(3.0)
    several = torch.arange(40)
    batch = task.batch(several, "cpu")
    assert batch.mask.sum(1).unique().numel() > 5 and batch.ids.shape == batch.mask.shape
    alone = torch.cat([task.outputs(model, task.batch(row[None], "cpu")) for row in several]).detach()
    torch.testing.assert_close(task.outputs(model, batch).detach(), alone, rtol=2e-4, atol=2e-5)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    seen = task.observe(model, {"a": order[:30], "b": order[30:]}, {"a": ["loss", "group"], "b": list(COLUMNS)})
    losses = torch.nn.functional.cross_entropy(alone.double(), task.labels(batch), reduction="none")
    torch.testing.assert_close(seen["a"]["loss"], losses[order[:30]], rtol=1e-3, atol=1e-4)
    assert torch.equal(seen["b"]["group"], task.rows().group_of[order[30:]])
    torch.testing.assert_close(task.losses(model, batch).mean(), task.loss(model, batch))


def test_batches_have_every_row_once_and_those_of_like_length_together(data):
    task = make(data, family="small-transformer", width=16)
    batches = task.batches(torch.arange(100), TrainSettings(batch_size=8), 5, "cpu")
    first, again, second = (list(batches(epoch)) for epoch in (0, 0, 1))
    assert len(first) == batches.steps == 13 and sum(len(batch.labels) for batch in first) == 100
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.labels, b.labels) for a, b in zip(first, second, strict=False))
    padding = sum(int((1 - batch.mask).sum()) for batch in first) / sum(batch.mask.numel() for batch in first)
    whole = task.batch(torch.arange(100), "cpu")
    assert padding < 0.1 < float((1 - whole.mask).float().mean())


def test_a_task_travels_to_another_process(data):
    task = make(data, family="small-transformer", width=16)
    again = pickle.loads(pickle.dumps(task))
    assert again.classifier == task.classifier and again.rows().fingerprint() == task.rows().fingerprint()


def test_labels_are_counted_as_the_models_outputs_are(data, tmp_path):
    folder = save(tmp_path / "model", labels=("tech", "food", "other", "sport"))
    task = make(data, family="hf", path=str(folder))
    assert task.rows().groups == ("tech", "food", "other", "sport") and task.classes == 4
    with (data / "train.csv").open() as file:
        names = [row["label"] for row in csv.DictReader(file)]
    assert [task.rows().groups[i] for i in task.rows().group_of[: len(names)]] == names
    strange = save(tmp_path / "strange", labels=("a", "b", "c"))
    with pytest.raises(InputError, match=r"no output named food, sport, tech: its classes are a, b, c; .*order"):
        make(data, family="hf", path=str(strange))
    assert make(data, family="hf", path=str(strange), labels="order").rows().groups == ("food", "sport", "tech")
    generic = save(tmp_path / "generic", labels=("LABEL_0", "LABEL_1"))
    with pytest.raises(InputError, match="has 2 outputs, the data 3 classes"):
        make(data, family="hf", path=str(generic))
    new = make(data, family="hf", path=str(generic), labels="new")
    start, weights = new.start(0).state_dict(), read_state_dict(generic)
    body = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(start[body], weights[body]) and start["classifier.weight"].shape[0] == 3
    drawn = make(data, family="hf", path=str(generic), labels="new", scratch=True).start(1).state_dict()
    assert not torch.equal(drawn[body], weights[body])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"problem_type": "multi_label_classification"}, "is a multi-label model"),
        ({"architectures": ["BertForTokenClassification"]}, "made for token classification"),
        ({"architectures": ["BertModel"]}, "is a BertModel, which has no head that classifies texts.*labels: new"),
        ({"architectures": ["LlamaForCausalLM"]}, "made for a causal language model.*write task: causal-lm"),
        ({"id2label": {"0": "score"}}, "has one output, a regression"),
        ({"architectures": ["SamModel"]}, "is made for segmentation"),
        ({"architectures": ["Wav2Vec2ForSequenceClassification"]}, "is made for audio classification"),
        ({"architectures": ["CLIPModel"], "model_type": "clip"}, "in a config, model: {family: clip} classifies by it"),
    ],
)
def test_other_kinds_of_models_are_refused_by_name(data, tmp_path, config, words):
    import json

    folder = save(tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **config}))
    with pytest.raises(InputError, match=words):
        make(data, family="hf", path=str(folder))


def test_a_family_and_a_source_may_be_files_of_ones_own(data, tmp_path):
    import json

    from negmerge.tasks.text_classification.families import small_transformer
    from negmerge.tasks.text_classification.sources import csv as csv_source

    family, source = tmp_path / "mine.py", tmp_path / "where.py"
    family.write_text(Path(small_transformer.__file__).read_text())
    source.write_text(Path(csv_source.__file__).read_text())
    config = {
        "name": "own",
        "task": "text-classification",
        "threads": 1,
        "workers": 1,
        "model": {"family": {"file": str(family)}, "width": 8, "heads": 2},
        "data": {"source": {"file": str(source)}, "path": str(data), "forget": {"classes": ["food"]}},
        "base": {"train": {"epochs": 1}},
        "pool": {"grid": {"lr": [1e-3], "epochs": [1]}},
        "methods": ["uniform"],
    }
    results = run(check_config(config), tmp_path / "run")
    assert results["model"]["family"] == "mine"
    inputs = {
        entry["path"] for entry in flattened(json.loads((tmp_path / "run" / "record.json").read_text()))["inputs"]
    }
    assert {str(family), str(source)} <= inputs


def test_a_model_without_tokenizer_is_refused(data, tmp_path):
    folder = save(tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        make(data, family="hf", path=str(folder))


def test_a_run_forgets_a_class(data, tmp_path, capsys):
    methods = ["consensus", {"name": "sisa", "shards": 2, "slices": 1}]
    config = run_of_texts(data, reference={"train": "base"}, methods=methods)
    results = run(check_config(config), tmp_path / "run")
    row, base = results["methods"]["consensus"], results["base"]
    assert base["forget"] > 80 and row["forget"] < 40 and row["retain"] >= 0.95 * base["retain"]
    assert results["task"]["noun"] == "text" and results["task"]["forget_classes"] == ["food"]
    assert "Forget texts right" in (tmp_path / "run" / "report.html").read_text()
    with pytest.raises(InputError, match="augment: flip is for images"):
        check_config({**config, "base": {"train": {"augment": "flip"}}})
    with pytest.raises(InputError, match="unknown source of texts 'digits'"):
        check_config({**config, "data": {"source": "digits", "forget": {"classes": ["3"]}}})
    with pytest.raises(SystemExit):
        main(["list", "text-families"])
    assert "small-transformer" in capsys.readouterr().out


@pytest.mark.heavy(6)
def test_a_projected_run_forgets_a_class_at_less_cost(data, tmp_path):
    projection = {"rows": "retain", "strength": 10}
    config = run_of_texts(data, methods=["uniform"], projection=projection, evaluation={"membership": []})
    made = check_config(config)
    place = tmp_path / "run"
    results = run(made, place)
    row, base = results["methods"]["uniform projected"], results["base"]
    assert row["projection"]["rows"]["retain"]["about"] == "retain texts"
    assert row["forget"] < 20 and row["retain"] >= 0.95 * base["retain"]
    material, private = prepare(RunDir(place), made), place / "private" / "methods"

    def at_forgetting(vector):
        start = place / "base" / "model.safetensors"
        return retain_loss(material.task, material.parts, start, private / vector, known=0.1, step=0.2)

    plain, start = at_forgetting("uniform/merged.safetensors")
    projected, _ = at_forgetting("uniform projected/merged.strength-10.safetensors")
    assert projected - start < 0.5 * (plain - start)
