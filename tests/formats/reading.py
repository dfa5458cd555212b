"""The formats that are read, each as what saves a small real checkpoint in it, and the forms of OUT."""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import write_state_dict

State = dict[str, Tensor]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Model:
    """A format that holds a whole model. Each of `ways` saves a state dict, and returns what a command is given."""

    title: str
    ways: Mapping[str, Callable[[Path, State], Path | str]]


@dataclass(frozen=True)
class LoRA:
    """A kind of adapter: its config, and of the base's `up` [64, 64] the change that its tensors make."""

    title: str
    config: Mapping[str, object]
    tensors: Callable[[Tensor, Tensor], State]
    change: Callable[[Tensor, Tensor], Tensor]
    written: bool = True  # whether --as-adapter writes such a one


@dataclass(frozen=True)
class Written:
    """A form of OUT: its name, the limit for shards, and the files that must be there."""

    title: str
    output: str
    max_shard_size: str | None
    files: tuple[str, ...]


def one_file(ending: str, **how: object) -> Callable[[Path, State], Path]:
    def make(folder: Path, state: State) -> Path:
        place = folder / f"model{ending}"
        torch.save(state, place, **how) if ending != ".safetensors" else write_state_dict(place, state)
        return place

    return make


def nested(*keys: str, file: str = "model.pt", **beside: object) -> Callable[[Path, State], Path]:
    def make(folder: Path, state: State) -> Path:
        content: object = state
        for key in reversed(keys):
            content = {"epoch": 3, key: content, **beside}
        torch.save(content, folder / file)
        return folder / file

    return make


def wrapped(save: Callable[[Path, State], Path], before: str, inside: str = "") -> Callable[[Path, State], Path]:
    """The names with wrappers: `before` all of them, and `inside` behind the first part of those that have several."""

    def make(folder: Path, state: State) -> Path:
        return save(folder, {before + name.replace(".", f".{inside}", 1): value for name, value in state.items()})

    return make


def called(name: str, save: Callable[[Path, State], Path]) -> Callable[[Path, State], Path]:
    """What `save` makes, under a name that does not tell its format."""
    return lambda folder, state: save(folder, state).rename(folder / name)


def in_folder(file: str) -> Callable[[Path, State], Path]:
    def make(folder: Path, state: State) -> Path:
        place = folder / "model"
        place.mkdir()
        write_state_dict(place / file, state) if file.endswith(".safetensors") else torch.save(state, place / file)
        (place / "config.json").write_text('{"model_type": "tiny"}')
        return place

    return make


def sharded(stem: str, ending: str) -> Callable[[Path, State], Path]:
    def make(folder: Path, state: State) -> Path:
        place = folder / "model"
        place.mkdir()
        weight_map = {}
        for i in range(3):
            part = {name: value for at, (name, value) in enumerate(state.items()) if at % 3 == i}
            file = place / f"{stem}-{i + 1:05}-of-00003.{ending}"
            write_state_dict(file, part) if ending == "safetensors" else torch.save(part, file)
            weight_map |= dict.fromkeys(part, file.name)
        index = place / f"{stem}.{ending}.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        return place

    return make


def on_hub(name: str) -> Callable[[Path, State], str]:
    """A model in the cache of the hub's client, which the test moves to `folder`/cache."""

    def make(folder: Path, state: State) -> str:
        place = folder / "cache" / "models--owner--tiny"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(COMMIT)
        (place / "snapshots" / COMMIT).mkdir(parents=True)
        write_state_dict(place / "snapshots" / COMMIT / "model.safetensors", state)
        return name

    return make


MODELS = (
    Model("one `.safetensors` file", {"file": one_file(".safetensors")}),
    Model("sharded `.safetensors` with an index", {"shards": sharded("model", "safetensors")}),
    Model(
        "Hugging Face folder with one `.safetensors`",
        {"model": in_folder("model.safetensors"), "another name": in_folder("weights.safetensors")},
    ),
    Model(
        "`.pt`, `.pth`, `.bin`: a state dict as `torch.save` writes it",
        {ending: one_file(ending) for ending in (".pt", ".pth", ".bin")},
    ),
    Model(
        "the same, in the format from before torch 1.6",
        {f"old {end}": one_file(end, _use_new_zipfile_serialization=False) for end in (".pt", ".pth", ".bin")},
    ),
    Model(
        "a state dict in a trainer's dictionary: under `state_dict`, `model_state_dict`, `model`, `net` and the like",
        {
            **{key: nested(key) for key in ("state_dict", "model_state_dict", "model", "net", "generator")},
            "both": nested("model", "state_dict"),
            "with settings": nested("net", args=argparse.Namespace(lr=0.1), best=np.float64(91.2)),
            "with an average": nested("state_dict", state_dict_ema={"large": torch.zeros(1)}),
        },
    ),
    Model(
        "the same under a name with another ending or none: the content decides",
        {
            "Lightning": nested("state_dict", file="last.ckpt", hyper_parameters=argparse.Namespace(lr=0.1)),
            ".pth.tar": nested("state_dict", file="model.pth.tar", optimizer={"state": {0: {"step": torch.ones(1)}}}),
            "no ending": called("model", one_file(".pt")),
            "old .model": called("x.model", one_file(".pt", _use_new_zipfile_serialization=False)),
            "old .th": called("x.th", one_file(".pt", _use_new_zipfile_serialization=False, pickle_protocol=1)),
            "safetensors in .bin": called("x.bin", one_file(".safetensors")),
            ".pt in .safetensors": called("x.safetensors", one_file(".pt")),
        },
    ),
    Model(
        "any of these with wrappers before or in its names: `module.`, `_orig_mod.`, `_fsdp_wrapped_module.`, `model.`",
        {
            "DataParallel": wrapped(nested("state_dict"), "module."),
            "DataParallel in safetensors": wrapped(one_file(".safetensors"), "module."),
            "compiled": wrapped(one_file(".pt"), "_orig_mod."),
            "compiled in parallel": wrapped(one_file(".pth"), "module._orig_mod."),
            "FSDP": wrapped(
                one_file(".pt"), "_fsdp_wrapped_module.", "_checkpoint_wrapped_module._fsdp_wrapped_module."
            ),
            "layers compiled": wrapped(in_folder("model.safetensors"), "", "_orig_mod."),
            "Lightning": wrapped(nested("state_dict", file="last.ckpt"), "model.net._orig_mod."),
            "shards": wrapped(sharded("pytorch_model", "bin"), "module."),
        },
    ),
    Model("Hugging Face folder with one `.bin`", {"bin": in_folder("pytorch_model.bin")}),
    Model("folder of sharded `.bin` with an index", {"bins": sharded("pytorch_model", "bin")}),
    Model(
        "model of the hub, `owner/name` or `owner/name@revision`, also from its cache without network",
        {"id": on_hub("owner/tiny"), "branch": on_hub("owner/tiny@main"), "commit": on_hub(f"owner/tiny@{COMMIT}")},
    ),
)


def factors(module: str = "up") -> Callable[[Tensor, Tensor], State]:
    names = (f"base_model.model.{module}.lora_A.weight", f"base_model.model.{module}.lora_B.weight")
    return lambda a, b: dict(zip(names, (a, b), strict=True))


ADAPTERS = (
    LoRA("LoRA adapter (a PEFT folder)", {"lora_alpha": 6}, factors(), lambda a, b: 6 / 4 * b @ a),
    LoRA(
        "rsLoRA: `use_rslora`",
        {"lora_alpha": 6, "use_rslora": True},
        factors(),
        lambda a, b: 6 / math.sqrt(4) * b @ a,
        written=False,
    ),
    LoRA(
        "`rank_pattern`, `alpha_pattern`",
        {"r": 32, "lora_alpha": 64, "rank_pattern": {"up": 4}, "alpha_pattern": {"u.": 10}},
        factors(),
        lambda a, b: 10 / 4 * b @ a,
        written=False,
    ),
    LoRA("`fan_in_fan_out`", {"lora_alpha": 4, "fan_in_fan_out": True}, factors(), lambda a, b: (b @ a).T),
    LoRA(
        "`modules_to_save`, trained biases: whole tensors",
        {"modules_to_save": ["up"]},
        lambda a, b: {"base_model.model.up.weight": torch.full((64, 64), 3.0)},
        lambda a, b: torch.full((64, 64), 2.0),
    ),
)


def save_adapter(folder: Path, kind: LoRA, ending: str) -> tuple[Path, State, Tensor]:
    """Save an adapter and return its folder, a base of ones that fits it, and the change it makes of `up.weight`."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 64, generator=draw), torch.randn(64, 4, generator=draw)
    place = folder / "adapter"
    place.mkdir()
    tensors, file = kind.tensors(a, b), place / f"adapter_model.{ending}"
    write_state_dict(file, tensors) if ending == "safetensors" else torch.save(tensors, file)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **kind.config}
    (place / "adapter_config.json").write_text(json.dumps(config))
    return place, {"up.weight": torch.ones(64, 64), "other.weight": torch.ones(1000, 1000)}, kind.change(a, b)


WRITTEN = (
    Written("one `.safetensors` file", "out.safetensors", None, ("out.safetensors",)),
    Written(
        "Hugging Face folder with one `.safetensors`", "out", None, ("model.safetensors", "README.md", "config.json")
    ),
    Written(
        "sharded `.safetensors` with an index",
        "out",
        "1MB",
        ("model.safetensors.index.json", "model-00001-of-00003.safetensors", "README.md", "config.json"),
    ),
)
