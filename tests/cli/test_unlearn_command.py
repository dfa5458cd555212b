"""`negmerge unlearn`: a run without YAML, a second request on its result, and what it refuses."""

import csv
import json
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "text"))

from tiny_models import rows, save

from negmerge.checkpoints import write_state_dict
from negmerge.cli import main
from negmerge.experiment.exporting.row import shipped_row
from negmerge.parsing import parse_yaml
from negmerge.record.statement import flattened
from negmerge.tasks.text_classification.families import small_transformer

transformers = pytest.importorskip("transformers")
FAST = ["--set", "threads=1", "--set", "workers=1", "--set", "pool.grid={lr: [3e-3, 1e-2], epochs: [4]}"]


def write(file, found):
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, found)))
        return file
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["text", "label"])
        writer.writeheader()
        writer.writerows(found)
    return file


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in arguments])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny BERT that knows three topics, saved as a user has it, and its rows."""
    folder = tmp_path_factory.mktemp("model")
    save(folder, hidden_dropout_prob=0.0, initializer_range=0.2)
    known = rows(180)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).train()
    batch = tokenizer([row["text"] for row in known], padding=True, return_tensors="pt")
    labels = torch.tensor([model.config.label2id[row["label"]] for row in known])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder, known


@pytest.mark.heavy(14)
def test_one_label_is_forgotten_without_yaml_and_a_second_request_goes_on(trained, tmp_path, call):
    folder, known = trained
    food = write(tmp_path / "food.csv", [row for row in known if row["label"] == "food"])
    everything = write(tmp_path / "all.csv", known)
    one = tmp_path / "one"
    arguments = ("unlearn", folder, "--forget", food, "--retain", everything, "-o", one, *FAST)
    code, out, err = call(*arguments)
    assert code == 0, err
    for words in (
        "BertForSequenceClassification",
        "60 to forget (text in 'text', class in 'label': food)",
        "no --unseen",
    ):
        assert words in err
    assert f"Unlearned model: {one / 'model'}" in out
    results = json.loads((one / "results.json").read_text())
    shipped = shipped_row(parse_yaml((one / "config.yaml").read_text()), results)
    base, row = results["base"], results["methods"][shipped]
    assert "is taken out of it; the better of the two models is handed over" in err
    assert list(results["methods"]) == ["consensus", "consensus projected"]
    assert results["task"]["rows"]["forget"] == 60 and results["task"]["kind"] == "rows"
    assert (
        results["task"]["rows"]["retain"] + results["task"]["rows"]["validation"] + results["task"]["rows"]["test"]
        == 120
    )
    assert base["forget"] > 90 and row["forget"] < 20 and row["retain"] >= 0.94 * base["retain"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(one / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(one / "model")
    batch = tokenizer([r["text"] for r in known if r["label"] == "food"], padding=True, return_tensors="pt")
    right = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(1) == 0
    assert 100 * right.float().mean().item() == pytest.approx(row["forget"], abs=1e-3)
    card = huggingface_hub.ModelCard.load(one / "model" / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "text-classification"
    assert call("verify", one / "model")[0] == 0 and call("verify", one)[0] == 0
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (one / "model").iterdir())
    code, again, _ = call(*arguments, "--json")
    assert code == 0 and json.loads(again)["methods"][shipped]["forget"] == row["forget"]

    few = write(tmp_path / "few.jsonl", [row for row in known if row["label"] == "tech"][:12])
    two = tmp_path / "two"
    code, out, err = call("unlearn", one, "--forget", few, "-o", two, *FAST)
    assert code == 0, err
    assert f"rows of earlier requests are left out: those that {one / 'split.json'} lists" in err
    assert f"what the run in {one} left ({shipped})" in err
    second = json.loads((two / "results.json").read_text())
    counts = second["task"]["rows"]
    assert counts["forget"] == 12 and counts["retain"] + counts["validation"] + counts["test"] == 108
    inputs = {
        entry["path"]: entry["hash"] for entry in flattened(json.loads((two / "record.json").read_text()))["inputs"]
    }
    first = flattened(json.loads((one / "record.json").read_text()))
    weights = f"methods/{shipped}/model.safetensors"
    assert str(one / "record.json") in inputs
    assert inputs[str(one / weights)] == next(e["hash"] for e in first["outputs"] if e["path"] == weights)
    assert parse_yaml((two / "config.yaml").read_text())["base"]["previous"] == str(one)
    assert call("verify", two)[0] == 0
    for name in ("purging", "purged"):  # the rows are gone, and what the model is opened with is not
        code, out, err = call("export", one, "-o", tmp_path / name, "--purge")
        assert code == 0, err
        assert not (one / "private").exists() and f"{folder}: the model that was given" in out
        assert "the data, with the rows that were forgotten (2 files)" in out
        shipped = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert shipped == {path.name: path.read_bytes() for path in (one / "model").iterdir()}


def test_weights_of_our_own_family_and_rows_that_stay_like_unseen_ones(tmp_path, call):
    own = small_transformer.Settings(width=16, vocabulary=256)
    model = small_transformer.build(own, 3)
    write_state_dict(tmp_path / "weights.safetensors", model.state_dict())
    forget, keep = write(tmp_path / "forget.csv", rows(12)), write(tmp_path / "keep.csv", rows(60, seed=1))
    unseen = write(tmp_path / "unseen.csv", rows(40, seed=2))
    family = ["--family", "small-transformer", "--set", "model.width=16", "--set", "model.vocabulary=256"]
    given = ("unlearn", tmp_path / "weights.safetensors", "--forget", forget, "--retain", keep, "--unseen", unseen)
    code, out, err = call(*given, "-o", tmp_path / "run", *family, "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)
    assert "forgotten rows look like unseen ones" in err and not (tmp_path / "run").exists()
    assert plan["rows"] | {"validation_forget": 0, "test_forget": 0} == plan["rows"]
    assert (plan["rows"]["forget"], plan["rows"]["retain"]) == (12, 60)
    assert (plan["rows"]["validation"], plan["rows"]["test"]) == (20, 20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"retain": None}, "nothing says what must be kept; give --retain FILE"),
        ({"forget": "rows.xml"}, "is no table that is read here; give .csv"),
        ({"model": "weights.safetensors"}, "holds weights alone; say what they are of: --family NAME, or FILE.py"),
        ({"model": "detector"}, "is made for detection"),
        ({"model": "unet"}, "is a UNet2DModel of diffusers; diffusion models are not supported"),
        ({"model": "unet", "forget": "no.csv"}, "UNet2DModel"),
        ({"forget": "model"}, "is a folder; give the rows to forget as a table or a list of ids"),
        ({"forget": "ids.txt"}, "rows of {folder}/keep.csv have no names; say which column has them"),
    ],
)
def test_what_is_refused_in_one_line(tmp_path, call, change, words):
    given = {"model": "model", "forget": "forget.csv", "retain": "keep.csv"} | change
    save(tmp_path / "model")
    write(tmp_path / "forget.csv", rows(12))
    write(tmp_path / "keep.csv", rows(60, seed=1))
    (tmp_path / "rows.xml").write_text("<rows/>")
    write_state_dict(tmp_path / "weights.safetensors", {"w": torch.zeros(1)})
    (tmp_path / "ids.txt").write_text("a-1\n")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    (tmp_path / "detector").mkdir()
    (tmp_path / "detector" / "config.json").write_text(
        json.dumps({"model_type": "detr", "architectures": ["DetrForObjectDetection"]})
    )
    keep = [] if given["retain"] is None else ["--retain", tmp_path / given["retain"]]
    code, _, err = call(
        "unlearn", tmp_path / given["model"], "--forget", tmp_path / given["forget"], *keep, "-o", tmp_path / "run"
    )
    assert (
        code == 2
        and words.replace("{folder}", str(tmp_path)) in err
        and err.strip().count("\n") <= 3
        and not (tmp_path / "run").exists()
    )


@pytest.mark.heavy(4)
@pytest.mark.parametrize("members", ["whole models", "adapters"])
def test_with_a_projection_the_projected_model_is_the_answer(trained, tmp_path, call, members):
    folder, known = trained
    food = write(tmp_path / "food.csv", [row for row in known if row["label"] == "food"])
    everything = write(tmp_path / "all.csv", known)
    adapter = ["--set", "pool.adapter={r: 4}"] if members == "adapters" else []
    projection = ["--set", "projection={samples: 100}"]
    out = tmp_path / "run"
    code, _, err = call(
        "unlearn", folder, "--forget", food, "--retain", everything, "-o", out, *FAST, *adapter, *projection
    )
    assert code == 0, err
    results = json.loads((out / "results.json").read_text())
    base, row = results["base"], results["methods"]["consensus projected"]
    assert row["needs"] == ["pool", "forget", "retain"]
    assert row["forget"] < 20 and row["retain"] >= 0.94 * base["retain"]
    acting = [layer for layer in row["projection"]["layers"] if layer["forget_before"] > 0]
    moved = [sum(layer[f"retain_{when}"] for layer in acting) for when in ("before", "after")]
    assert moved[1] < 0.7 * moved[0]
    kinds = {layer["name"].split(".")[-2] for layer in acting}
    assert {"query", "classifier"} <= kinds
    assert ("word_embeddings" in kinds) == (members == "whole models")  # adapters leave embeddings alone
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    batch = tokenizer([r["text"] for r in known if r["label"] == "food"], padding=True, return_tensors="pt")
    right = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(1) == 0
    assert 100 * right.float().mean().item() == pytest.approx(row["forget"], abs=1e-3)


def test_texts_by_a_list_of_ids_and_columns_of_other_names(tmp_path, call):
    own = small_transformer.Settings(width=16, vocabulary=256)
    write_state_dict(tmp_path / "w.safetensors", small_transformer.build(own, 3).state_dict())
    known = [{"number": f"q-{i}", "body": row["text"], "topic": row["label"]} for i, row in enumerate(rows(60))]
    table = tmp_path / "all.jsonl"
    table.write_text("\n".join(map(json.dumps, known)))
    (tmp_path / "gone.txt").write_text("q-7\nq-11\nq-11\n")
    given = ("unlearn", tmp_path / "w.safetensors", "--family", "small-transformer", "--forget", tmp_path / "gone.txt")
    more = ("--set", "model.width=16", "--set", "model.vocabulary=256", "--dry-run", "--json")
    given = (*given, "--retain", table, "-o", tmp_path / "run", *more)
    code, _, err = call(*given)
    assert code == 2 and "which column holds the text" in err
    code, out, err = call(*given, "--set", "data.columns={text: body, label: topic, id: number}", "--set", "seeds=[1]")
    assert code == 0, err
    counts = json.loads(out)["rows"]
    assert counts["forget"] == 2 and counts["retain"] + counts["validation"] + counts["test"] == 58
    code, _, err = call(*given, "--set", "data.columns={text: body, label: topic, id: nubmer}")
    assert code == 2 and "did you mean 'number'?" in err


def test_a_second_list_of_photos_though_the_first_is_written_anew(tmp_path, call):
    from PIL import Image

    from negmerge.tasks.image_classification.families import small_cnn

    draw = torch.Generator().manual_seed(0)
    for name in ("circle", "line"):
        for i in range(20):
            place = tmp_path / "photos" / name / f"{name}-{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 255, (8, 8, 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(place)
    state = small_cnn.build(small_cnn.Settings(width=4), 2, (3, 8, 8)).state_dict()
    write_state_dict(tmp_path / "w.safetensors", state)
    listed, photos = tmp_path / "gone", tmp_path / "photos"
    small = ("--set", "model.width=4", "--set", "pool.grid={lr: [1e-3], epochs: [1]}", *FAST[:4])
    listed.write_text("line-0.png\nline-1.png\n")
    given = ("--family", "small-cnn", "--retain", photos)
    code, _, err = call(
        "unlearn", tmp_path / "w.safetensors", "--forget", listed, *given, "-o", tmp_path / "one", *small
    )
    assert code == 0 and "names 2 images" in err and "pool: 1 member, lr 0.001; epochs 1" in err, err
    assert "running statistics stay as they are" in err
    listed.write_text("line-2.png\nline-3.png\nline-4.png\n")
    again = ("unlearn", tmp_path / "one", "--forget", listed, "-o", tmp_path / "two", "--dry-run", "--json")
    for retain in ((), ("--retain", photos)):
        code, out, err = call(*again, *retain)
        assert code == 0 and f"left out: those that {tmp_path / 'one' / 'split.json'} lists" in err
        counts = json.loads(out)["rows"]
        assert counts["forget"] == 3 and sum(counts.values()) == 38
    assert "leave --family out" in call(*again, *given)[2]
    code, _, err = call(*again, "--forget", photos / "line" / "line-9.png")
    assert code == 2 and "is an image; write its name into a .txt file" in err
    (photos / "line" / "mine").mkdir()
    code, _, err = call(*again, "--forget", photos / "line" / "mine")
    assert code == 2 and f"is no class of {photos} (these are circle, line); name single files" in err
    code, _, err = call(*again, "--forget", tmp_path / "no.txt")
    assert code == 2 and "no.txt: No such file or directory; give a list" in err


@pytest.mark.heavy(4)
def test_a_class_folder_of_a_resnet_of_transformers(tmp_path, call):
    from PIL import Image

    draw = torch.Generator().manual_seed(0)
    for label, name in enumerate(("circle", "line", "spot")):
        for i in range(24):
            pixels = torch.randint(0, 90, (16, 16, 3), generator=draw)
            pixels[5 * label : 5 * label + 5] += 150
            place = tmp_path / "photos" / name / f"{name}-{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(place)
    folder = tmp_path / "model"
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
        id2label={0: "spot", 1: "line", 2: "circle"},
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    photos, out = tmp_path / "photos", tmp_path / "run"
    given = ("unlearn", folder, "--forget", photos / "line", "--retain", photos, "-o", out)
    code, _, err = call(*given, *FAST, "--set", "base={train: {epochs: 8, lr: 1e-2, batch_size: 16}}")
    assert code == 0, err
    assert "ResNetForImageClassification of transformers, for images" in err and "is forgotten as a whole" in err
    results = json.loads((out / "results.json").read_text())
    base, row = results["base"], results["methods"]["consensus"]
    assert results["task"]["forget_classes"] == ["line"] and results["task"]["classes"] == ["spot", "line", "circle"]
    assert base["forget"] > 80 and row["forget"] < 0.5 * base["forget"]
    again = transformers.AutoModelForImageClassification.from_pretrained(out / "model").state_dict()
    assert set(again) == set(transformers.ResNetForImageClassification(config).state_dict())
    assert (out / "model" / "preprocessor_config.json").is_file()
    code, _, err = call(*given[:2], "--forget", tmp_path, "--retain", photos, "-o", tmp_path / "other")
    assert code == 2 and "name its files, one a line" in err
    code, plan, err = call(
        "unlearn", out, "--forget", photos / "spot", "-o", tmp_path / "two", *FAST, "--dry-run", "--json"
    )
    assert code == 0 and "class line, forgotten earlier, is not kept" in err
    counts = json.loads(plan)["rows"]
    assert 15 <= counts["forget"] <= 24 and counts["retain"] <= 24  # circles alone
