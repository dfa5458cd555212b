"""Any image classifier of transformers: its own processor, its own labels, in a whole run; and what is refused."""

import json

import numpy as np
import pytest
import torch

from negmerge.errors import InputError
from negmerge.experiment.config import check_config
from negmerge.experiment.pipeline import run
from negmerge.record.statement import flattened
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.decoding import DecodingSettings, decode
from negmerge.tasks.image_classification.family import family_of

transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

DIGITS = tuple(str(digit) for digit in range(10))
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
STAGES = {"depths": [1, 1], "hidden_sizes": [8, 16]}
MODELS = {
    "vit": lambda **c: transformers.ViTConfig(image_size=16, patch_size=4, **SIZE, **c),
    "resnet": lambda **c: transformers.ResNetConfig(embedding_size=8, layer_type="basic", **STAGES, **c),
    "convnext": lambda **c: transformers.ConvNextConfig(patch_size=2, num_stages=2, **STAGES, **c),
    "swin": lambda **c: transformers.SwinConfig(
        image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, **c
    ),
}
# What the hub's models of each kind have, at the size of small images.
PROCESSORS = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "resample": 2},
    "resnet": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}, "crop_pct": 0.875},
    "convnext": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 384},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
    },
    "swin": {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}, "resample": 3},
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 20, "width": 20},
        "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True,
        "resample": 3,
    },
    "clip": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 18},
        "crop_size": {"height": 15, "width": 15},
    },
    "mobilevit": {
        "image_processor_type": "MobileViTImageProcessor",
        "size": {"shortest_edge": 20},
        "crop_size": {"height": 16, "width": 16},
        "do_center_crop": True,
        "do_flip_channel_order": True,
        "resample": 3,
    },
}


def save(folder, kind="vit", labels=DIGITS, processor=True, **config):
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(0)
    model = transformers.AutoModelForImageClassification.from_config(MODELS[kind](**names, **config))
    model.save_pretrained(folder)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    return folder


@pytest.mark.parametrize("kind", PROCESSORS)
def test_images_are_prepared_as_the_models_own_processor_does(tmp_path, kind):
    save(tmp_path, "vit")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]))
    family = family_of("hf")
    settings = family.Settings(path=str(tmp_path))
    own = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    for size in ((41, 23), (22, 60), (16, 16), (500, 420)):
        pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        ours = family.prepare(settings, decode([image], DecodingSettings(**family.image_form(settings)), "here"))
        theirs = own(images=image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_build_weights_and_logits(tmp_path, kind):
    classifier = Classifier("hf", {"path": str(save(tmp_path, kind))}, 10, (3, 16, 16))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    ours = classifier.start(3).eval()
    assert set(ours.state_dict()) == set(model.state_dict()) == set(classifier.contents.pretrained(classifier.checked))
    prepared = classifier.prepare(images)
    torch.testing.assert_close(classifier.logits(ours, prepared), model(pixel_values=prepared).logits)
    twin, other = classifier.build(1).state_dict(), classifier.build(2).state_dict()
    assert all(torch.equal(value, twin[name]) for name, value in classifier.build(1).state_dict().items())
    assert not all(torch.equal(value, twin[name]) for name, value in other.items())
    pixels = images.float().requires_grad_()
    (gradient,) = torch.autograd.grad(classifier.prepare(pixels.clone()).sum(), pixels)
    assert (gradient > 0).all()


@pytest.mark.heavy(8)
def test_a_run_forgets_a_class_of_a_model_with_labels_in_another_order(tmp_path):
    folder = save(tmp_path / "model", "resnet", labels=DIGITS[::-1])
    config = {
        "name": "hf",
        "threads": 1,
        "workers": 1,
        "model": {"family": "hf", "path": str(folder)},
        "data": {"source": "digits", "forget": {"classes": ["3"]}, "mode": "rgb"},
        "base": {"train": {"lr": 1e-2, "epochs": 3, "batch_size": 64}},
        "pool": {"train": {"batch_size": 32}, "grid": {"lr": [3e-4, 1e-3], "epochs": [2]}},
        "methods": ["consensus"],
    }
    results = run(check_config(config), tmp_path / "run")
    row, base = results["methods"]["consensus"], results["base"]
    assert results["task"]["classes"] == list(DIGITS[::-1]) and results["task"]["forget_classes"] == ["3"]
    assert base["retain"] > 60 and row["forget"] < base["forget"] and row["retain"] >= 0.94 * base["retain"]
    record = flattened(json.loads((tmp_path / "run" / "record.json").read_text()))
    named = {entry["path"].rpartition("/")[2] for entry in record["inputs"]}
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= named


def test_without_a_processor_the_settings_say_how_images_are_prepared(tmp_path):
    folder, family = save(tmp_path, processor=False), family_of("hf")
    with pytest.raises(InputError, match="has no preprocessor_config"):
        family.image_form(family.Settings(path=str(folder)))
    own = family.Settings(path=str(folder), image_size=16, mean=[0.5], std=[0.25])
    assert family.image_form(own) == {"image_size": 16, "mode": "rgb"}
    white = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert family.prepare(own, white).unique().tolist() == [2.0]
    with pytest.raises(ValueError, match="give all three, or none"):
        family.Settings(path=str(folder), image_size=16)


def test_a_processor_that_does_more_is_refused(tmp_path):
    family, folder = family_of("hf"), save(tmp_path)
    strange = {**PROCESSORS["vit"], "image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True}
    (folder / "preprocessor_config.json").write_text(json.dumps({**strange, "rescale_factor": 1 / 127.5}))
    with pytest.raises(InputError, match="does more than resizing, cutting and normalising"):
        family.image_form(family.Settings(path=str(folder)))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["DetrForObjectDetection"]}, "made for detection"),
        ({"architectures": ["SegformerForSemanticSegmentation"]}, "made for segmentation"),
        ({"problem_type": "multi_label_classification"}, "is a multi-label model"),
        ({"architectures": ["ViTModel"]}, "no head that classifies images"),
    ],
)
def test_other_kinds_are_refused_by_name(tmp_path, config, words):
    folder, family = save(tmp_path), family_of("hf")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **config}))
    with pytest.raises(InputError, match=words):
        family.build(family.Settings(path=str(folder)), 10, (3, 16, 16))


def test_a_diffusion_pipeline_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    family = family_of("hf")
    with pytest.raises(InputError, match="diffusion models are not supported"):
        family.image_form(family.Settings(path=str(tmp_path)))


def test_timm_is_asked_for_by_name_and_missed_in_words(monkeypatch):
    family = family_of("timm")
    settings = family.Settings(name="tiny", weights=True)
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(InputError, match="needs the package timm, which cannot be imported"):
        family.build(settings, 3, (3, 8, 8))


def test_timm_gives_model_weights_and_form(monkeypatch):
    """A stand-in with timm's two functions: the package itself does not install beside a CPU build of torch."""
    import sys
    from types import ModuleType

    calls = []

    def create_model(name, pretrained, num_classes, in_chans):
        if name != "tiny":
            raise RuntimeError("Unknown model")
        calls.append((name, pretrained, num_classes, in_chans))
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))

    timm, data = ModuleType("timm"), ModuleType("timm.data")
    data.resolve_model_data_config = lambda model: {
        "input_size": (3, 14, 14),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "interpolation": "bicubic",
        "crop_pct": 0.875,
    }
    timm.create_model, timm.data = create_model, data
    monkeypatch.setitem(sys.modules, "timm", timm)
    family = family_of("timm")
    settings = family.Settings(name="tiny", weights=True)
    family.start(settings, 5, (3, 14, 14), 1)
    assert calls[-1] == ("tiny", True, 5, 3)
    form = family.image_form(settings)
    assert form == {"image_size": 14, "scale_to": 16, "resize": "crop", "resample": "bicubic"}
    white = torch.full((1, 3, 14, 14), 255, dtype=torch.uint8)
    assert family.prepare(settings, white).unique().tolist() == [1.0]
    with pytest.raises(InputError, match="timm has no model 'tyni'"):
        family.build(family.Settings(name="tyni"), 5, (3, 14, 14))
