"""A tiny random CLIP in the hub's format, its tokenizer built from a few captions."""

import json
import string
import sys
from pathlib import Path

import torch
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


__all__ = ["byte_pairs", "save_tiny_clip", "train_clip"]
