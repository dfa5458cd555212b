"""LoRA adapters as PEFT saves them: bound to a base, each yields its ΔW in float32, block by block.

    ΔW = s · B·A,  s = lora_alpha / r, or lora_alpha / √r with rsLoRA

Hu et al., LoRA (arXiv 2106.09685); Kalajdzievski, rsLoRA (arXiv 2312.03732); https://huggingface.co/docs/peft
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints.base import Checkpoint
from negmerge.errors import InputError, listing

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
BLOCK = 2**15  # elements of ΔW computed at a time; fixed, so that no sum depends on how the engine cuts
# Keys of the config that do not change what ΔW is, or are handled here. Any other that is set is refused by its name.
UNDERSTOOD = (
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora",
    "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size",
    "ensure_weight_tying",
)  # fmt: skip
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
FACTOR = re.compile(r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB])(?:\.weight)?")


@dataclass(frozen=True)
class LowRank:
    """ΔW = scale · left @ right, of shape [rows, columns] when the base's tensor is seen as a matrix; float32."""

    left: Tensor
    right: Tensor
    scale: float

    def read(self, start: int, stop: int) -> Tensor:
        """Return elements start … stop of the flattened ΔW."""
        columns = self.right.shape[1]
        rows = max(1, BLOCK // columns)
        first = start // columns // rows * rows
        last = -(-stop // columns)
        blocks = [self.left[r : r + rows] @ self.right * self.scale for r in range(first, last, rows)]
        return torch.cat(blocks).reshape(-1)[start - first * columns : stop - first * columns]


class Adapter:
    """A LoRA adapter: its config, checked, and its tensors.

    Raises InputError for a folder that is none, another kind than LoRA (DoRA and the like), and an adapter whose
    training changed the base too.
    """

    def __init__(self, folder: Path, shown: Path, weights: Checkpoint) -> None:
        self.path = shown
        self.weights = weights
        self.files = (*weights.files, folder / CONFIG)
        self.config = _read_config(folder / CONFIG, shown)

    @property
    def declared_base(self) -> str | None:
        """The model that the adapter says it was trained on."""
        name = self.config.get("base_model_name_or_path")
        return name if isinstance(name, str) and name else None

    def bind(self, base: Checkpoint) -> "BoundAdapter":
        """Return the adapter's change of each of the base's tensors that it touches.

        Raises InputError that lists every factor without a partner, a place in the base or a fitting shape.
        """
        try:
            return BoundAdapter(self, base)
        finally:
            self.weights.close()


class BoundAdapter:
    """An adapter under the interface of a checkpoint: the base's names; `read_delta` gives the change itself."""

    def __init__(self, adapter: Adapter, base: Checkpoint) -> None:
        self.path, self.files = adapter.path, adapter.files
        self.metadata: dict[str, str] = {}
        self.declared_base = adapter.declared_base
        self.tied: dict[str, str] = {}
        self.names = base.names
        self._base = base
        self._changes, problems = _changes(adapter, base)
        if problems:
            headline = f"{adapter.path} does not fit the base {base.path} in {len(problems)} places:"
            raise InputError(listing(headline, problems))
        self.touched = frozenset(self._changes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return float32, the dtype of a change; that of the base where it changes nothing."""
        return torch.float32 if name in self.touched else self._base.dtype(name)

    def read_delta(self, name: str, start: int, stop: int) -> Tensor:
        """Return elements start … stop of the flattened change, float32; zeros where the adapter changes nothing."""
        change = self._changes.get(name)
        if change is None:
            return torch.zeros(stop - start)
        if isinstance(change, LowRank):
            return change.read(start, stop)
        return change[start:stop] - self._base.read(name, start, stop).float()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements of the tensor with the change applied, in float32."""
        values = self._base.read(name, start, stop)
        if name not in self.touched:
            return values
        return values.float() + self.read_delta(name, start, start + len(values))

    def locate(self, name: str) -> None:
        """Return None: a change is computed, not stored."""
        return

    def close(self) -> None:
        """Let go of the factors."""
        self._changes = {}


def is_adapter(place: Path) -> bool:
    """Whether a path is the folder of a PEFT adapter."""
    return (place / CONFIG).is_file()


def _read_config(path: Path, shown: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise InputError(f"{shown}: {CONFIG} is not JSON; save the adapter again") from None
    if not isinstance(config, dict):
        raise InputError(f"{shown}: {CONFIG} is not a JSON object; save the adapter again")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{shown} is an adapter of kind {kind}, only LORA is read; merge it into its base first")
    if config.get("use_dora"):
        raise InputError(f"{shown} is a DoRA adapter, whose change is no product B·A; merge it into its base first")
    for key, value in config.items():
        if value and key not in UNDERSTOOD:
            raise InputError(f"{shown}: the adapter uses {key}, which is not read; merge it into its base first")
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(CHANGED_BASE):
        raise InputError(
            f"{shown}: its initialisation ({init}) changed the base as well; convert it to a plain LoRA "
            "(peft: path_initial_model_for_weight_conversion)"
        )
    return config


def _changes(adapter: Adapter, base: Checkpoint) -> tuple[dict[str, LowRank | Tensor], list[str]]:
    factors: dict[str, dict[str, Tensor]] = {}
    changes: dict[str, LowRank | Tensor] = {}
    problems: list[str] = []
    for key in adapter.weights.names:
        value = adapter.weights.read(key).float().reshape(adapter.weights.shape(key))
        if not torch.isfinite(value).all():
            raise InputError(f"{adapter.path}: tensor {key} holds NaN or Inf; a diverged run cannot be merged")
        plain = key.removeprefix("base_model.model.")
        found = FACTOR.fullmatch(plain)
        if found:
            factors.setdefault(found["module"], {})[found["part"][-1]] = value
            continue
        # modules_to_save and biases: the whole tensor, in the place of the base's
        name = _name_in(base, plain.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."))
        if name is None:
            problems.append(f"{key} has no place in the base")
        elif base.shape(name) != tuple(value.shape):
            problems.append(f"{key} has shape {list(value.shape)}, {name} has {list(base.shape(name))}")
        else:
            changes[name] = value.reshape(-1)
    for module, pair in factors.items():
        name = _name_in(base, f"{module}.weight")
        if set(pair) != {"A", "B"}:
            problems.append(f"{module} has only factor {next(iter(pair))}")
        elif name is None:
            problems.append(f"{module} has no place in the base")
        elif (change := _low_rank(adapter.config, module, pair["A"], pair["B"], base.shape(name))) is None:
            shapes = f"{list(pair['B'].shape)} · {list(pair['A'].shape)}"
            problems.append(f"{module}: {shapes} does not give the shape {list(base.shape(name))} of {name}")
        else:
            changes[name] = change
    return changes, problems


def _low_rank(config: dict[str, Any], module: str, a: Tensor, b: Tensor, shape: tuple[int, ...]) -> LowRank | None:
    rank = a.shape[0]
    if not shape or b.dim() < 2 or a.dim() < 2 or b[0].numel() != rank:
        return None
    a, b = a.reshape(rank, -1), b.reshape(-1, rank)
    alpha = _of_module(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    rows, columns = shape[0], math.prod(shape[1:])
    straight, turned = (rows, columns) == (len(b), a.shape[1]), (rows, columns) == (a.shape[1], len(b))
    # Conv1D layers and embeddings are stored the other way round; a square one only the config can tell.
    if turned and (config.get("fan_in_fan_out") or not straight):
        return LowRank(a.T.contiguous(), b.T.contiguous(), scale)
    return LowRank(b.contiguous(), a.contiguous(), scale) if straight else None


def _of_module(patterns: Any, module: str, default: float) -> float:
    for key, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return float(value)
    return float(default)


def _name_in(base: Checkpoint, name: str) -> str | None:
    """Return the base's name of a tensor: the same, or the only one that is the same but for a prefix."""
    if name in base.names:
        return name
    found = [own for own in base.names if own.endswith("." + name) or name.endswith("." + own)]
    return found[0] if len(found) == 1 else None
