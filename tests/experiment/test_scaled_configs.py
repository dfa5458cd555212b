"""The configs for one GPU, with every line of them, on few small images: one epoch, two members, one value a search."""

from pathlib import Path

import pytest
import torch
import yaml

from negmerge import registry
from negmerge.checkpoints import write_state_dict
from negmerge.experiment.config import check_config, load_config
from negmerge.experiment.pipeline import run
from negmerge.tasks.image_classification import classifier
from negmerge.tasks.image_classification.classifier import Classifier

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SWIN = {"image_size": 16, "patch_size": 4, "window_size": 2, "width": 12, "depths": [1, 1], "heads": [1, 2]}
# With ImageNet's stem the last strided convolutions see an eighth and a sixteenth of an image's side. Where this is one
# or two pixels, a CPU computes in float32, and not in bf16 as the configs ask: of 33 pixels they see five and three.
SIDES = {"imagenet-resnet": 33}
NAMES = ["cifar10-resnet18", "cifar10-vgg16", "cifar10-swin-t", "cub-resnet18", "tiny-imagenet-resnet18"]


def write_images(folder, image, label, splits, side):
    """A local folder in the format of the hub's data set: 100 rows to train on and 40 others, four classes."""
    import datasets
    from PIL import Image

    kinds = {image: datasets.Image(), label: datasets.ClassLabel(names=["a", "b", "c", "d"])}
    folder.mkdir()
    files = [{"split": split, "path": f"{split}.parquet"} for split in splits]
    card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{card}---\n")  # else `valid` would be called validation
    for seed, (split, count) in enumerate(zip(splits, (100, 40), strict=True)):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 4
        pixels = torch.randint(0, 128, (count, side, side, 3), generator=generator)
        pixels[torch.arange(count), labels, :, :] += 127  # a bright line, where the class says
        pictures = [Image.fromarray(p.to(torch.uint8).numpy()) for p in pixels]
        table = datasets.Dataset.from_dict({image: pictures, label: labels.tolist()}, features=datasets.Features(kinds))
        table.to_parquet(folder / f"{split}.parquet")


def one_value(method):
    """A row with one value for each setting it searches, and one epoch."""
    module = registry.load("methods", method["name"])
    fixed = {key: values[0] for key, values in getattr(module, "SEARCH", {}).items() if key not in method}
    epochs = {"epochs": 1} if "epochs" in getattr(getattr(module, "Settings", None), "model_fields", {}) else {}
    return {**method, **fixed, **epochs}


def scaled(name, folder):
    """The config of that name, with its data in `folder` and everything that takes long made short."""
    config = load_config(CONFIGS / f"{name}.yaml").resolved()
    source = config["data"]
    splits = source.get("splits", {"train": "train", "test": "test"}).values()
    side = SIDES.get(config["model"]["family"], 8)
    write_images(folder / "images", source["columns"]["image"], source["columns"]["label"], splits, side)
    source["path"] = str(folder / "images")
    if source.get("image_size"):
        source["image_size"] = side
    if source["train_rows"]:
        source["train_rows"], source["validation"]["rows"] = [0, 80], [80, 100]
    if config["model"]["family"] == "swin":
        config["model"] |= SWIN
    if config["model"].get("pretrained"):
        own = {key: value for key, value in config["model"].items() if key not in ("family", "pretrained")}
        published = Classifier(config["model"]["family"], own, 7, (3, side, side)).build(5)
        write_state_dict(folder / "published.safetensors", published.state_dict())
        config["model"]["pretrained"] = str(folder / "published.safetensors")
    config["seeds"], config["workers"], config["threads"], config["device"] = [0], 1, 1, "cpu"
    config["base"]["train"] |= {"epochs": 1, "lr": 0.01}  # at 0.1 a shard of twenty rows may diverge in bf16
    grid = config["pool"]["grid"]
    config["pool"]["grid"] = {key: values[:1] for key, values in grid.items()} | {"epochs": [1], "seed": [0, 1]}
    config["methods"] = [one_value({k: v for k, v in method.items() if v is not None}) for method in config["methods"]]
    return config


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_a_config_for_one_gpu_runs_scaled_down(name, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(classifier, "compiled", lambda forward: asked.append(forward) or forward)  # minutes on a CPU
    raw = scaled(name, tmp_path)
    results = run(check_config(raw), tmp_path / "run")
    rows = results["methods"]
    assert list(rows) == [method["label"] or method["name"] for method in raw["methods"]]
    assert {"retrain", "uniform", "uniform-projected", "consensus", "consensus-projected", "salun"} <= rows.keys()
    assert all(0 <= row["forget"] <= 100 and row["gap"] is not None for row in rows.values())
    assert asked and results["pool"]["consensus"] > 0
    facts = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert facts["compute"] == {"precision": "bf16", "channels_last": True, "compile": True}


def test_the_recipe_of_the_published_table_is_the_protocols():
    config = load_config(CONFIGS / "cifar10-resnet18.yaml")
    train = config.base.train
    assert (train.lr, train.momentum, train.weight_decay, train.batch_size, train.epochs) == (0.1, 0.9, 5e-4, 256, 182)
    steps = 182 * 176  # batches of 256 in 45,000
    rates = {epoch: train.learning_rate((epoch - 1) * 176, steps) for epoch in (1, 91, 92, 136, 137, 138, 182)}
    assert rates[1] == rates[91] == 0.1 and rates[92] == pytest.approx(0.01) and rates[138] == pytest.approx(0.001)
    assert rates[136] == pytest.approx(0.01) and rates[137] == pytest.approx(0.001)
    grid = config.pool.grid
    assert grid == {
        "epochs": [40, 50, 60],
        "weight_decay": [1e-4, 5e-5, 1e-5],
        "label_smoothing": [0.0, 0.05, 0.1],
    }
    assert config.pool.train["lr"] == 0.05 and config.seeds == [0, 1, 2] and config.data.forget.fraction == 0.1
