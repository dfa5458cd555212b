"""LoRA adapters as PEFT saves them: bound to a base, each yields its ΔW in float32, block by block.

    ΔW = s · B·A,  s = lora_alpha / r, or lora_alpha / √r with rsLoRA

Hu et al., LoRA (arXiv 2106.09685); Kalajdzievski, rsLoRA (arXiv 2312.03732); https://huggingface.co/docs/peft
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from negmerge.checkpoints.base import Checkpoint, is_name
from negmerge.checkpoints.dtypes import FLOAT32, DType, Raw
from negmerge.checkpoints.low_rank import LowRank, check_scales, low_ranks
from negmerge.checkpoints.memory import stored
from negmerge.checkpoints.plain_file import CONFIG_LIMIT, read_small
from negmerge.checkpoints.wrappers import unwrapped
from negmerge.errors import InputError, listing

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
BESIDE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# Keys of the config that do not change what ΔW is, or are handled here. Any other that is set is refused by its name.
UNDERSTOOD = (
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "target_modules", "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora",
    "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size",
    "ensure_weight_tying",
)  # fmt: skip
CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
OWN_WRAPPING = re.compile(r"\.(base_layer|modules_to_save(\.default)?)\.")
FACTOR = re.compile(r"(?P<module>.+)\.(?P<part>lora_(?:embedding_)?[AB])(?:\.weight)?")


@dataclass(frozen=True)
class Home:
    """Where an adapter keeps its change of a tensor: in the factors of the module `key`, or as the whole tensor `key`.

    `turned`: (B·A)ᵀ has the shape of the tensor, not B·A.
    """

    key: str
    form: Literal["factors", "embedding", "whole"]
    turned: bool = False


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
        whole = [name for name in BESIDE if (folder / name).is_file()]
        note = (
            f"{shown}: its adapter is taken, not {' and '.join(whole)}; to take the model, give it a folder of its own"
        )
        self.notes = (note,) if whole else ()

    @property
    def declared_base(self) -> str | None:
        """The model that the adapter says it was trained on."""
        name = self.config.get("base_model_name_or_path")
        return _shown(name) if isinstance(name, str) and name else None

    @property
    def named(self) -> dict[str, Literal["factors", "whole"]]:
        """The tensors of a model that the adapter names, and whether it has factors of each or the whole tensor."""
        found: dict[str, Literal["factors", "whole"]] = {}
        for key in self.weights.names:
            name, part = _parsed(key)
            found[f"{name}.weight" if part else name] = "factors" if part else "whole"
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tensors that the adapter names, as a model without prefix would have them."""
        return tuple(self.named)

    def close(self) -> None:
        """Release the file."""
        self.weights.close()

    def bind(self, base: Checkpoint, wanted: Callable[[str], bool] = lambda _: True) -> BoundAdapter:
        """Return the adapter's change of each of the base's tensors that it touches and that is `wanted`.

        Raises InputError that lists every factor without a partner, a place in the base or a fitting shape.
        """
        try:
            return BoundAdapter(self, base, wanted)
        finally:
            self.close()


class BoundAdapter(Checkpoint):
    """An adapter under the interface of a checkpoint: the base's names; `read_delta` gives the change itself."""

    def __init__(self, adapter: Adapter, base: Checkpoint, wanted: Callable[[str], bool]) -> None:
        self.path, self.files = adapter.path, adapter.files
        self.metadata: dict[str, str] = {}
        self.declared_base = adapter.declared_base
        self.config, self.notes = adapter.config, adapter.notes
        self.tied: dict[str, str] = {}
        self.names = base.names
        self._base = base
        self._changes, self.homes, problems = _changes(adapter, base, wanted)
        problems += _spread_over_ties(self._changes, base)
        if problems:
            headline = f"{adapter.path} does not fit the base {base.path} in {len(problems)} places:"
            raise InputError(listing(headline, problems))
        self.touched = frozenset(self._changes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._base.shape(name)

    def dtype(self, name: str) -> DType:
        """Return float32, the dtype of a change; that of the base where it changes nothing."""
        return FLOAT32 if name in self.touched else self._base.dtype(name)

    def read_delta(self, name: str, start: int, stop: int) -> Tensor:
        """Return elements start … stop of the flattened change, float32; zeros where the adapter changes nothing."""
        import torch

        change = self._changes.get(name)
        if change is None:
            return torch.zeros(stop - start)
        if isinstance(change, LowRank):
            return change.read(start, stop)
        return change[start:stop] - self._base.read(name, start, stop).float()

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements of the tensor with the change applied, in float32."""
        if name not in self.touched:
            return self._base.raw(name, start, stop)
        values = self._base.read(name, start, stop)
        return stored(values.float() + self.read_delta(name, start, start + len(values)))

    def locate(self, name: str) -> None:
        """Return None: a change is computed, not stored."""
        return

    def close(self) -> None:
        """Let go of the factors."""
        self._changes = {}


def weights_in(folder: Path) -> Path | None:
    """Return the file of an adapter's tensors, or None where there is none."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def is_adapter(place: Path) -> bool:
    """Whether a path is the folder of a PEFT adapter."""
    return (place / CONFIG).is_file()


def _read_config(path: Path, shown: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_small(path, CONFIG_LIMIT))
    except (ValueError, RecursionError):
        raise InputError(f"{shown}: {CONFIG} is not JSON; save the adapter again") from None
    if not isinstance(config, dict):
        raise InputError(f"{shown}: {CONFIG} is not a JSON object; save the adapter again")
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{shown} is an adapter of kind {_shown(kind)}, only LORA is read; merge it first")
    if config.get("use_dora"):
        raise InputError(f"{shown} is a DoRA adapter, whose change is no product B·A; merge it into its base first")
    for key, value in config.items():
        if value and key not in UNDERSTOOD:
            raise InputError(
                f"{shown}: the adapter uses {_shown(key)}, which is not read; merge it into its base first"
            )
    check_scales(config, shown)
    init = str(config.get("init_lora_weights", "")).lower()
    if init.startswith(CHANGED_BASE):
        raise InputError(
            f"{shown}: its initialisation ({_shown(init)}) changed the base as well; convert it to a plain LoRA "
            "(peft: path_initial_model_for_weight_conversion)"
        )
    return config


def _shown(value: object) -> str:
    """Return a word of the config for a message of one line, whatever it holds."""
    text = str(value)
    return text if is_name(text) and len(text) <= 80 else f"{text!r:.80}…"


def _changes(
    adapter: Adapter, base: Checkpoint, wanted: Callable[[str], bool]
) -> tuple[dict[str, LowRank | Tensor], dict[str, Home], list[str]]:
    import torch

    factors: dict[str, dict[str, Tensor]] = {}
    changes: dict[str, LowRank | Tensor] = {}
    homes: dict[str, Home] = {}
    problems: list[str] = []
    places = Places(base)
    for key in adapter.weights.names:
        own, part = _parsed(key)
        plain = f"{own}.weight" if part else own
        if not wanted(places.of(plain) or plain):
            continue
        value = _values(adapter, key)
        if part:
            factors.setdefault(own, {})[part] = value
            continue
        # modules_to_save and biases: the whole tensor, in the place of the base's
        name = places.of(plain)
        if name is None:
            problems.append(f"{key} has no place in the base")
        elif base.shape(name) != tuple(value.shape):
            problems.append(f"{key} has shape {list(value.shape)}, {name} has {list(base.shape(name))}")
        else:
            changes[name] = value.reshape(-1)
            homes[name] = Home(key, "whole")
    found_places = {module: places.of(f"{module}.weight") for module in factors}
    products, more = low_ranks(adapter.config, factors, found_places, base.shape)
    for name, product in products.items():
        # With an adapted embedding PEFT saves the base's own weights too.
        if name in changes and not torch.equal(changes[name], base.read(name).float()):  # type: ignore[arg-type]
            more.append(f"{name} has factors and is changed as a whole as well")
        changes[name] = product
        homes[name] = Home(product.module, "embedding" if product.embedding else "factors", product.turned)
    return changes, homes, problems + more


def _parsed(key: str) -> tuple[str, str | None]:
    """Return the module and the factor that a key of an adapter names, or the tensor and None."""
    plain = key.removeprefix("base_model.model.")
    found = FACTOR.fullmatch(plain)
    if found:
        return found["module"], found["part"].removeprefix("lora_")
    return OWN_WRAPPING.sub(".", plain), None


def _values(adapter: Adapter, key: str) -> Tensor:
    import torch

    dtype = adapter.weights.dtype(key)
    if not dtype.is_floating_point:
        raise InputError(f"{adapter.path}: tensor {key} is {dtype}, factors are floats; save the adapter again")
    value = adapter.weights.read(key).float().reshape(adapter.weights.shape(key))
    if not torch.isfinite(value).all():
        raise InputError(f"{adapter.path}: tensor {key} holds NaN or Inf; a diverged run cannot be merged")
    return value


def _spread_over_ties(changes: dict[str, LowRank | Tensor], base: Checkpoint) -> list[str]:
    """Change every name of tied weights by the factors of one of them, as PEFT does when it merges them into the base.

    A tensor that is saved whole is a copy, and leaves the other names as they are. Returns a line for each tensor that
    has factors by two names which differ: each would be added to the same matrix.
    """
    groups: dict[str, list[str]] = {}
    for name in base.names:
        groups.setdefault(base.tied.get(name, name), []).append(name)
    problems = []
    for group in groups.values():
        factored = {name: change for name in group if isinstance(change := changes.get(name), LowRank)}
        if len(group) > 1 and factored:
            first = next(iter(factored))
            problems += [
                f"{name} and {first} are one tensor in the base and have different factors; untie the base first"
                for name, change in factored.items()
                if not change.equals(factored[first])
            ]
            for name in group:
                changes.setdefault(name, factored[first])
    return problems


class Places:
    """The base's names, found without wrappers' parts, and with and without up to four parts before them."""

    def __init__(self, base: Checkpoint) -> None:
        self._names = frozenset(base.names)
        self._plain: dict[str, list[str]] = {}
        self._short: dict[str, list[str]] = {}
        for own in base.names:
            plain = unwrapped(own)
            self._plain.setdefault(plain, []).append(own)
            for short in _without_prefix(plain):
                self._short.setdefault(short, []).append(own)

    def of(self, name: str) -> str | None:
        """Return the base's name of a tensor: the same, or the only one that differs by wrappers or a prefix alone."""
        if name in self._names:
            return name
        plain = unwrapped(name)
        found = self._plain.get(plain) or [
            *self._short.get(plain, []),
            *(own for short in _without_prefix(plain) for own in self._plain.get(short, [])),
        ]
        return found[0] if len(found) == 1 else None


def _without_prefix(name: str) -> list[str]:
    return [".".join(name.split(".", i)[i:]) for i in range(1, 1 + min(4, name.count(".")))]
