"""Where a merged change goes in an adapter: into factors, whole into a saved module, or nowhere."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from negmerge.checkpoints.adapter import BoundAdapter, Home
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.wrappers import without_wrappers
from negmerge.errors import InputError
from negmerge.merging.pool.fitted import Pool
from negmerge.merging.pool.tied_names import is_embedding, is_head, listed_head, read_config, says_tied, ties_words
from negmerge.merging.pool.ties import groups

PREFIX = "base_model.model."  # of every key that PEFT saves
# Modules that look a row up: PEFT's factors of an embedding have another form, so these are written whole.
LOOKED_UP = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared|relative_attention_bias)$")
# In these models transformers has linear layers whose matrix is [inputs, outputs] (Conv1D).
TURNED_MODELS = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
TURNED = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)$")
TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM"}


@dataclass(frozen=True)
class AdapterPlan:
    """The homes of the merged tensors, in the order of the base, and what of the change no adapter can hold.

    `copies` are the further keys of tensors that are written whole; `saved` are the modules that these belong to.
    `passed` maps further keys of these modules to tensors of the base: PEFT wants all that a saved module has.
    """

    homes: Mapping[str, Home]
    copies: Mapping[str, Sequence[str]]
    passed: Mapping[str, str]
    left_out: tuple[str, ...]
    saved: tuple[str, ...]
    biases: str
    adapters: tuple[BoundAdapter, ...]

    @property
    def whole(self) -> tuple[str, ...]:
        """The tensors that are written whole."""
        return tuple(name for name, home in self.homes.items() if home.form == "whole")

    def config(self, pool: Pool, rank: int) -> bytes:
        """Return adapter_config.json: what the members that are adapters agree on, and the modules that are touched."""
        homes, adapters = self.homes.values(), self.adapters

        def agreed(key: str) -> Any:
            values = [adapter.config.get(key) for adapter in adapters]
            return values[0] if values and all(value == values[0] for value in values) else None

        config = {
            "peft_type": "LORA",
            "task_type": agreed("task_type") if adapters else _task(read_config(pool.base)),
            "auto_mapping": agreed("auto_mapping"),
            "base_model_name_or_path": agreed("base_model_name_or_path") if adapters else str(pool.base.path),
            "revision": agreed("revision"),
            "inference_mode": True,
            "r": rank,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "target_modules": [home.key for home in homes if home.form != "whole"],
            "modules_to_save": list(self.saved) or None,
            "bias": self.biases,
            "fan_in_fan_out": any(home.form == "factors" and home.turned for home in homes),
            "layers_pattern": None,
            **({"ensure_weight_tying": True} if agreed("ensure_weight_tying") else {}),
            "peft_version": adapters[0].config.get("peft_version") if adapters else None,
        }
        return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def plan_adapter(pool: Pool) -> AdapterPlan:
    """Return where each merged tensor goes.

    Where a member is an adapter that changes a tensor, its own way holds: factors if one has any, else whole. Of whole
    models matrices and convolutions are factored; embeddings, tied tensors, depthwise convolutions, norms and biases
    are written whole. What is no weight or bias of a module of its own is left out: PEFT could not put it anywhere.

    Raises InputError where nothing is left to factor, and for a tied embedding whose head is not known by name.
    """
    adapters = tuple(member for member in pool.members if isinstance(member, BoundAdapter))
    own = groups([*pool.merged, *pool.tied, *pool.implied], {**pool.implied, **pool.tied})
    homes: dict[str, Home] = {}
    copies: dict[str, list[str]] = {}
    left_out: list[str] = []
    saved = dict.fromkeys(module for adapter in adapters for module in adapter.config.get("modules_to_save") or ())
    biases = next((bias for a in adapters if (bias := a.config.get("bias") or "none") != "none"), "none")
    rules = None if len(adapters) == len(pool.members) else _Rules(pool)
    for name, names in own.items():
        if not elements(pool.base.shape(name)):
            continue
        found = [adapter.homes[tied] for tied in names for adapter in adapters if tied in adapter.homes]
        if found:
            homes[name] = home = next((home for home in found if home.form != "whole"), found[0])
            keys = list(dict.fromkeys(home.key for home in found))
        elif rules is not None and (home_of_rule := rules.home(name, names)) is not None:
            homes[name] = home = home_of_rule
            keys = [home.key, *rules.further_keys(name, names)] if home.form == "whole" else []
            if home.form == "whole" and not home.key.endswith(".base_layer.bias"):
                saved.update(dict.fromkeys(key.rpartition(".")[0] for key in keys))
            elif home.form == "whole":
                biases = "all"
        else:
            left_out.append(name)
            continue
        if home.form == "whole":
            # PEFT copies what an adapter saves, and so a name that is left out would stay as it is in the base.
            copies[name] = [key for key in keys if key != home.key]
    if rules is not None and all(home.form == "whole" for home in homes.values()):
        raise InputError(
            f"{pool.base.path}: none of the {len(pool.merged)} merged tensors is a matrix that can be factored; "
            "leave --as-adapter out"
        )
    written = {key.removeprefix(PREFIX) for name, home in homes.items() for key in (home.key, *copies.get(name, ()))}
    passed = {} if rules is None else {key: name for key, name in rules.of_modules(saved) if key not in written}
    return AdapterPlan(homes, copies, passed, tuple(left_out), tuple(saved), biases, adapters)


class _Rules:
    """How the tensors of whole models are told apart, by names, shapes and the base's config."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._config = read_config(pool.base) or {}
        self._plain = without_wrappers([*pool.base.names, *pool.implied])
        plain = self._plain.values()
        # Modules with modules inside, which PEFT would save with all that is in them.
        self._parents = frozenset(parent for name in plain for parent in _parents(name.rpartition(".")[0]))
        self._attentions = frozenset(n.removesuffix("in_proj_weight") for n in plain if n.endswith("in_proj_weight"))
        self._factored = frozenset(
            self._module(name) for name in pool.merged if name.endswith(".weight") and self._can_be_factored(name)
        )

    def home(self, name: str, names: Sequence[str]) -> Home | None:
        """Return where a tensor goes that has these names in the base; None where it cannot go anywhere."""
        module, word = self._module(name), self._plain[name].rpartition(".")[2]
        if word not in ("weight", "bias") or not module or self._in_attention(module):
            return None
        if word == "weight" and len(names) == 1 and module in self._factored:
            turned = self._config.get("model_type") in TURNED_MODELS and TURNED.search(module) is not None
            return Home(module, "factors", turned and len(self._pool.base.shape(name)) == 2)
        if word == "bias" and module in self._factored:
            return Home(f"{module}.base_layer.bias", "whole")
        return None if module in self._parents else Home(self._plain[name], "whole")

    def further_keys(self, name: str, names: Sequence[str]) -> list[str]:
        """Return the other names of a tensor that is written whole, with that of a tied head that is not stored."""
        others = [self._plain[other] for other in names if other != name]
        if self._config and ties_words(self._config) and is_embedding(name) and not any(map(is_head, names)):
            try:
                head = listed_head(self._config, self._plain[name])
            except LookupError as error:
                if not says_tied(self._config):
                    return others
                raise InputError(
                    f"{self._pool.base.path} ties {name} to its head, which is not known by name: {error}; "
                    f"install transformers, or leave it out by --exclude '^{re.escape(name)}$'"
                ) from None
            others += [head] if head is not None and head not in self._plain.values() else []
        return others

    def of_modules(self, modules: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield the keys of all tensors that modules have in the base, each with its name there."""
        return ((self._plain[name], name) for name in self._pool.base.names if self._module(name) in modules)

    def _can_be_factored(self, name: str) -> bool:
        shape, module = self._pool.base.shape(name), self._module(name)
        if len(shape) < 2 or 0 in shape or self._is_tied(name):
            return False
        if len(shape) > 2:
            return shape[1] > 1 or shape[0] == 1  # a depthwise convolution has a matrix for each channel
        table = shape[0] == self._config.get("vocab_size") and not is_head(name)
        return not (table or is_embedding(name) or LOOKED_UP.search(module) or self._in_attention(module))

    def _is_tied(self, name: str) -> bool:
        pool = self._pool
        return name in pool.tied.values() or name in pool.implied.values()

    def _in_attention(self, module: str) -> bool:
        """Whether a module is the output of torch's attention, which reads its weight past PEFT's layer."""
        return f"{module.rpartition('.')[0]}." in self._attentions

    def _module(self, name: str) -> str:
        return self._plain[name].rpartition(".")[0]


def _parents(module: str) -> list[str]:
    """Return all modules around a module, such as a and a.b for a.b.c."""
    words = module.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


def _task(config: Mapping[str, Any] | None) -> str | None:
    """Return PEFT's task of a model that its config names; None for those that need none."""
    names = (config or {}).get("architectures") or [""]
    return next((task for ending, task in TASKS.items() if str(names[0]).endswith(ending)), None)
