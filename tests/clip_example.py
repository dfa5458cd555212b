"""A tiny random CLIP in the hub's format, its tokenizer built from a few captions; images and a run for it."""

import json
import string
import sys
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "clip"))
import byte_pairs
import train_clip


def save_tiny_clip(folder, *, seed=0, size=16, patch=8, mean=0.5, std=0.25):
    """Save a CLIPModel of two layers a tower and return it in eval mode."""
    tokenizer = byte_pairs.build_tokenizer(["a photo of a cat.", "art of the dog", *string.digits], 200)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**shared, **ends, "pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
    config = CLIPConfig(
        text_config={**text, "max_position_embeddings": 40},
        vision_config={**shared, "image_size": size, "patch_size": patch},
        projection_dim=24,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config).eval()
    for parameter in model.parameters():  # transformers starts small: larger weights make features that differ
        parameter.data.mul_(1 if parameter.dim() < 2 else 4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {"image_mean": [mean] * 3, "image_std": [std] * 3}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(facts))
    return model


def save_colours(folder):
    """Save a table in CIFAR-10's form whose classes are colours: 200 rows to train on, 60 to test."""
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    draw = np.random.default_rng(0)
    Path(folder).mkdir(exist_ok=True)
    for part, rows in (("train", 200), ("test", 60)):
        labels = [i % 10 for i in range(rows)]
        pixels = [(draw.integers(0, 40, (16, 16, 3)) + 20 * np.array([n, 9 - n, 5])).clip(0, 255) for n in labels]
        features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=names.split())}
        rows = {"img": [Image.fromarray(p.astype(np.uint8)) for p in pixels], "label": labels}
        datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(folder / f"{part}.parquet")


def tiny_run(name, clip, colours):
    """The config, as plain values, of a run that forgets the digits and keeps the colours."""
    train = {"optimizer": "adamw", "batch_size": 32, "epochs": 9, "steps": 12}
    train |= {"warmup_steps": 2, "clip": 1.0, "accumulate": 2}
    return {
        "name": name,
        "workers": 1,
        "threads": 1,
        "device": "cpu",
        "model": {"family": "clip", "path": str(clip), "templates": ["the {}", "a photo of {}."]},
        "data": {"forget": {"source": "digits"}, "retain": {"source": "cifar10", "path": str(colours)}},
        "base": {"pretrained": True},
        "pool": {"train": train, "grid": {"lr": [1.0e-4, 5.0e-4], "augment": ["none", "rand-m3-n1"]}},
        "methods": ["consensus", "uniform", "best-single", "greedy", "ties", "magmax"],
        "selection": {"floor_on": "validation"},
        "evaluation": {"membership": [], "most": 300},
    }


__all__ = ["byte_pairs", "save_colours", "save_tiny_clip", "tiny_run", "train_clip"]
