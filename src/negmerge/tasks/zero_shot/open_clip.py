"""open_clip's checkpoints of CLIP as the folder of a `CLIPModel`, and back: the same tensors under other names.

open_clip keeps query, key and value of a layer in one matrix and its projections transposed. The package itself is not
needed: a checkpoint is a state dict.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.checkpoints.wrappers import without_wrappers
from negmerge.errors import InputError, listing
from negmerge.tasks.zero_shot.files import MEAN, STD

# Attention heads by the width of a tower: of 64 numbers each, but for ViT-H (80), ViT-g (88) and ViT-bigG (104). They
# cannot be told from the tensors, whose shapes are the same for any number.
HEADS = {
    "vision": {width: width // 64 for width in (384, 512, 768, 1024)} | {1280: 16, 1408: 16, 1664: 16},
    "text": {width: width // 64 for width in (384, 512, 640, 768, 1024, 1280)},
}
LAYER = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
PLAIN = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",  # so spelt in transformers
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
IN_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
PARTS = ("q_proj", "k_proj", "v_proj")


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an open_clip model under the names of `CLIPModel`; `module.` before names is dropped.

    in_proj [3w, w] = query ‖ key ‖ value, row by row; the projections are transposed. Raises InputError that lists the
    names that no plain CLIP with two transformers has.
    """
    found: dict[str, Tensor] = {}
    strange = []
    for full, value in state.items():
        name = full.removeprefix("module.")
        layer = LAYER.fullmatch(name)
        if name in PLAIN:
            found[PLAIN[name]] = value.reshape(()) if name == "logit_scale" else value
        elif name in TRANSPOSED:
            found[TRANSPOSED[name]] = value.T.contiguous()
        elif layer and layer[3] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            kind = layer[3].rpartition("_")[2]
            for part, rows in zip(PARTS, value.chunk(3), strict=True):
                found[f"{_tower(layer)}.self_attn.{part}.{kind}"] = rows.contiguous()
        elif layer and layer[3].rpartition(".")[0] in IN_LAYER:
            place, _, kind = layer[3].rpartition(".")
            found[f"{_tower(layer)}.{IN_LAYER[place]}.{kind}"] = value
        elif name != "attn_mask":  # made anew by every model
            strange.append(full)
    if strange:
        raise InputError(listing(f"{len(strange)} tensors are not those of an open_clip CLIP with a ViT:", strange))
    return found


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a `CLIPModel` under open_clip's names: the inverse of `from_open_clip`."""
    plain = {theirs: ours for ours, theirs in PLAIN.items()}
    transposed = {theirs: ours for ours, theirs in TRANSPOSED.items()}
    in_layer = {theirs: ours for ours, theirs in IN_LAYER.items()}
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in plain:
            found[plain[name]] = value
        elif name in transposed:
            found[transposed[name]] = value.T.contiguous()
        else:
            tower, number, rest = re.fullmatch(r"(\w+)_model\.encoder\.layers\.(\d+)\.(.+)", name).groups()  # type: ignore[union-attr]
            place, _, kind = rest.rpartition(".")
            layer = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}"
            if place in in_layer:
                found[f"{layer}.{in_layer[place]}.{kind}"] = value
            elif place.endswith("q_proj"):
                stem = name.replace(f"q_proj.{kind}", "")
                found[f"{layer}.attn.in_proj_{kind}"] = torch.cat([state[f"{stem}{part}.{kind}"] for part in PARTS])
    return found


def clip_config(
    state: Mapping[str, Tensor], activation: str, heads: Mapping[str, int | None] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the config.json of the `CLIPModel` whose tensors these are.

    `activation` and the numbers of attention `heads` of the towers vision and text cannot be told from them; the latter
    are those of open_clip's models of the same width unless given. Raises InputError for a width that is not known.
    """
    patch = state["vision_model.embeddings.patch_embedding.weight"]
    places = len(state["vision_model.embeddings.position_embedding.weight"])
    context, text = state["text_model.embeddings.position_embedding.weight"].shape
    vocabulary = len(state["text_model.embeddings.token_embedding.weight"])
    side = round((places - 1) ** 0.5) * patch.shape[-1]
    towers = {}
    for tower, width in (("text", text), ("vision", patch.shape[0])):
        layers = {name.split(".")[3] for name in state if name.startswith(f"{tower}_model.encoder.layers.")}
        towers[tower] = {
            "hidden_size": width,
            "intermediate_size": len(state[f"{tower}_model.encoder.layers.0.mlp.fc1.weight"]),
            "num_hidden_layers": len(layers),
            "num_attention_heads": _heads(tower, width, heads.get(tower)),
            "hidden_act": activation,
        }
    ends = {"vocab_size": vocabulary, "max_position_embeddings": context}
    ends |= {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": len(state["visual_projection.weight"]),
        "text_config": {**towers["text"], **ends},
        "vision_config": {**towers["vision"], "image_size": side, "patch_size": patch.shape[-1]},
    }


def _heads(tower: str, width: int, given: int | None) -> int:
    number = given if given is not None else HEADS[tower].get(width)
    if number is None:
        raise InputError(
            f"{tower} tower of width {width}: how many attention heads it has is not known; "
            f"give {tower}_heads (--{tower}-heads), which is width / head_width of the model's own config"
        )
    if number < 1 or width % number:
        raise InputError(f"{tower}_heads must divide the tower's width {width}, got {number}")
    return number


def convert_open_clip(
    checkpoint: Path, output: Path, *, activation: str, vision_heads: int | None = None, text_heads: int | None = None
) -> None:
    """Write an open_clip checkpoint (.pt, .bin, .safetensors) as the folder of a `CLIPModel`.

    `activation`: quick_gelu for OpenAI's weights and those trained like them, gelu for open_clip's own. A tokenizer is
    not part of a checkpoint: add the files of openai/clip-vit-base-patch32, which all these models share. The heads
    are those of open_clip's models of the same width unless given.

    Raises InputError for tensors of another model, for another activation, and for a width that needs the heads given.
    """
    if activation not in ("gelu", "quick_gelu"):
        raise InputError(f"activation must be gelu or quick_gelu, got {activation!r}")
    state = read_state_dict(checkpoint)
    plain = without_wrappers(tuple(state))
    state = from_open_clip({plain[name]: tensor for name, tensor in state.items()})
    config = clip_config(state, activation, {"vision": vision_heads, "text": text_heads})
    output.mkdir(parents=True, exist_ok=True)
    write_state_dict(output / "model.safetensors", state, {"format": "pt"})
    write_bytes_atomic(output / "config.json", json.dumps(config, indent=1).encode())
    statistics = {"image_mean": MEAN, "image_std": STD}
    write_bytes_atomic(output / "preprocessor_config.json", json.dumps(statistics, indent=1).encode())


def _tower(layer: re.Match[str]) -> str:
    return f"{'vision' if layer[1] else 'text'}_model.encoder.layers.{layer[2]}"
