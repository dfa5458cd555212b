"""Members that are LoRA adapters: attached to the base, trained alone, stored alone; their change is ΔW = s · B·A.

All members of a pool start from one draw of A. Adapters that are drawn apart live in different random subspaces: the
signs of their changes agree by chance only, and what is made of them is a random mask.
"""

import json
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from negmerge.checkpoints import open_adapter, open_checkpoint, write_bytes_atomic, write_state_dict
from negmerge.checkpoints.adapter import CONFIG, WEIGHTS, is_adapter
from negmerge.errors import InputError, nearest
from negmerge.seeding import seeded
from negmerge.tasks.task import Task

ALL_LINEAR = "all-linear"
NAME = "default"  # of an adapter inside a module, as PEFT calls the first
PREFIX = "base_model.model."  # of every key that PEFT saves


class AdapterSettings(BaseModel):
    """What a LoRA adapter is made of: ΔW = alpha / r · B·A with A [r, inputs] and B [outputs, r], B = 0 at first."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    r: int = Field(8, ge=1, description="rank of the change of a matrix")
    alpha: float | None = Field(None, gt=0, description="the change is multiplied by alpha / r; r unless given")
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="names of modules or their ends (q_proj, fc1); all-linear: every linear layer"
    )

    @property
    def scale_alpha(self) -> float:
        """What stands above r in the scale of the change."""
        return float(self.r) if self.alpha is None else self.alpha


def attach(model: nn.Module, settings: AdapterSettings, seed: int, drawn: int | None = None) -> list[str]:
    """Put an adapter beside every target, in place; only its factors can be trained then. Returns the targets.

    A is drawn from the seed, so that members with the same seed share it; with `drawn` for so many ranks, of which the
    first `settings.r` are kept, so that members of different ranks share what they have in common. Needs the package
    peft. Raises InputError for targets that the model does not have.

    Source: Hu et al., LoRA, 2021 (arXiv 2106.09685).
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = find_targets(model, settings.targets)
    turned = any(_is_turned(model.get_submodule(name)) for name in targets)
    config = LoraConfig(
        r=drawn or settings.r,
        lora_alpha=settings.scale_alpha,  # type: ignore[arg-type]  # any number will do
        target_modules=targets,
        fan_in_fan_out=turned,
    )

    def make() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that fan_in_fan_out was changed for layers of another class
            return inject_adapter_in_model(config, model, NAME)

    try:
        seeded(make, seed)
    except ValueError as error:  # what PEFT says of a module that it has no adapter for
        raise InputError(f"pool.adapter.targets: {' '.join(str(error).split())[:200]}") from None
    if drawn is not None:
        for name in targets:
            _narrow(model.get_submodule(name), settings)
    return targets


def _narrow(layer: Any, settings: AdapterSettings) -> None:
    """Keep the first r ranks of a layer's adapter, at its own scale."""
    layer.r[NAME], layer.scaling[NAME] = settings.r, settings.scale_alpha / settings.r
    for factors, axis in (("lora_A", 0), ("lora_B", 1), ("lora_embedding_A", 0), ("lora_embedding_B", 1)):
        if NAME not in getattr(layer, factors, {}):
            continue
        found = getattr(layer, factors)[NAME]
        kept = getattr(found, "weight", found).detach().narrow(axis, 0, settings.r).clone()
        if isinstance(found, nn.Module):
            found.weight = nn.Parameter(kept)
        else:
            getattr(layer, factors)[NAME] = nn.Parameter(kept)


def find_targets(model: nn.Module, wanted: str | list[str]) -> list[str]:
    """Return the full names of the modules that an adapter goes to, in the order of the model.

    all-linear: linear layers (and transformers' Conv1D) whose weight no other module shares; what lies inside torch's
    own MultiheadAttention is left out, since it is never called as a layer.

    >>> find_targets(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), "all-linear")
    ['0', '2']
    """
    names = {name: module for name, module in model.named_modules() if name}
    if wanted != ALL_LINEAR:
        found = [n for n in names if any(n == target or n.endswith(f".{target}") for target in wanted)]
        lost = [t for t in wanted if not any(n == t or n.endswith(f".{t}") for n in found)]
        if lost or not found:
            word = lost[0] if lost else ""
            known = {name.rpartition(".")[2] for name in names}
            raise InputError(f"pool.adapter.targets: the model has no module {word!r}{nearest(word, known)}")
        return found
    inside = [name + "." for name, module in names.items() if isinstance(module, nn.MultiheadAttention)]
    linear = {n: m for n, m in names.items() if isinstance(m, nn.Linear) or _is_turned(m)}
    owners = [id(parameter) for module in names.values() for parameter in module.parameters(recurse=False)]
    found = [n for n, m in linear.items() if owners.count(id(m.weight)) == 1 and not n.startswith(tuple(inside))]
    if not found:
        raise InputError("pool.adapter: the model has no linear layer of its own; name modules: targets: [conv1]")
    return found


def count_elements(model: nn.Module, settings: AdapterSettings) -> int:
    """Return how many numbers an adapter of a model holds: r · (inputs + outputs) over its targets."""
    layers: list[Any] = [model.get_submodule(name) for name in find_targets(model, settings.targets)]
    return sum(settings.r * (len(layer.weight) + layer.weight[0].numel()) for layer in layers)


def write_adapter(folder: Path, model: nn.Module, settings: AdapterSettings, targets: list[str]) -> None:
    """Write the factors of a model's adapter as PEFT saves one: the config last, which marks the folder as whole."""
    folder.mkdir(parents=True, exist_ok=True)
    factors = {
        PREFIX + name.replace(f".{NAME}", ""): value.detach().cpu().contiguous()
        for name, value in model.named_parameters()
        if ".lora_" in name
    }
    write_state_dict(folder / WEIGHTS[0], factors)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": settings.r,
        "lora_alpha": settings.scale_alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": any(_is_turned(model.get_submodule(name)) for name in targets),
    }
    write_bytes_atomic(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


@torch.no_grad()
def open_member(task: Task, base: Path, member: Path, device: str = "cpu") -> nn.Module:
    """Return the model of a member, in evaluation mode: its own weights, or those of the base with its ΔW added."""
    if not is_adapter(member):
        return task.open(member, device)
    model = task.open(base, device)
    state = model.state_dict()
    opened = open_checkpoint(base)
    done: set[int] = set()
    try:
        bound = open_adapter(member, member).bind(opened)
        for name in bound.names:
            value = state[name]
            if name in bound.touched and value.data_ptr() not in done:
                done.add(value.data_ptr())  # tied weights are one tensor, and change once
                delta = bound.read_delta(name, 0, value.numel()).reshape(value.shape)
                value.copy_((value.float().cpu() + delta).to(value.dtype))
    finally:
        opened.close()
    return model


def plain_module(model: nn.Module) -> tuple[nn.Module, AdapterSettings | None]:
    """Return a module that PEFT wrapped as a plain one, its adapter merged, and the settings of that adapter.

    Any other module is returned as it is, with None. Raises InputError for an adapter that cannot be merged into
    weights, such as learned prompts.
    """
    if not type(model).__module__.startswith("peft.") or not hasattr(model, "peft_config"):
        return model, None
    import copy

    wrapped: Any = model
    config = wrapped.peft_config[wrapped.active_adapter]
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA" or getattr(config, "use_dora", False):
        raise InputError(
            f"unlearn: the module is wrapped by PEFT with {kind}; only LoRA is understood: merge it first "
            "(merge_and_unload), or give the module inside"
        )
    targets = [name for name, part in wrapped.get_base_model().named_modules() if hasattr(part, "lora_A")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT about transformers' names
        plain: nn.Module = copy.deepcopy(wrapped).merge_and_unload()
    for parameter in plain.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    if not targets:
        raise InputError("unlearn: the adapter of the module changes no layer; give the module inside")
    return plain, AdapterSettings(r=config.r, alpha=scale * config.r, targets=targets)


def _is_turned(module: nn.Module) -> bool:
    """Whether a layer keeps its matrix as [inputs, outputs], as transformers' Conv1D does, inside an adapter or not."""
    own = getattr(module, "base_layer", module)
    return type(own).__name__ == "Conv1D"
