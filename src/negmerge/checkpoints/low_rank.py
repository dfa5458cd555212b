"""ΔW = s · B·A of each module that an adapter touches: its scale, its way round, its pieces.

    s = lora_alpha / r, or lora_alpha / √r with rsLoRA; r is that of the factors, lora_alpha may have a pattern

Hu et al., LoRA (arXiv 2106.09685); Kalajdzievski, rsLoRA (arXiv 2312.03732); https://huggingface.co/docs/peft
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negmerge.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 2**15  # elements of ΔW computed at a time; fixed, so that no sum depends on how the engine cuts
REPEATS = re.compile(r"(?<!\\)[*+{]")
NESTED = re.compile(r"\)[*+{]")


@dataclass(frozen=True)
class LowRank:
    """ΔW = scale · left @ right, of shape [rows, columns] when the base's tensor is seen as a matrix; float32.

    It belongs to `module`; `turned` says that left is Aᵀ and right is Bᵀ.
    """

    left: Tensor
    right: Tensor
    scale: float
    module: str
    embedding: bool
    turned: bool

    def equals(self, other: LowRank) -> bool:
        """Return whether another module has the same factors and scale."""
        import torch

        same = torch.equal(self.left, other.left) and torch.equal(self.right, other.right)
        return same and self.scale == other.scale

    def read(self, start: int, stop: int) -> Tensor:
        """Return elements start … stop of the flattened ΔW."""
        import torch

        if stop <= start:
            return torch.empty(0)
        columns = self.right.shape[1]
        rows = max(1, BLOCK // columns)
        first = start // columns // rows * rows
        last = -(-stop // columns)
        blocks = [self.left[r : r + rows] @ self.right * self.scale for r in range(first, last, rows)]
        return torch.cat(blocks).reshape(-1)[start - first * columns : stop - first * columns]


@dataclass(frozen=True)
class _Pair:
    """The factors of one module as matrices, with the shape of the base's tensor."""

    module: str
    name: str
    a: Tensor
    b: Tensor
    shape: tuple[int, ...]
    embedding: bool

    @property
    def straight(self) -> bool:
        """Whether B·A has the shape of the base's tensor."""
        return self._is(len(self.b), self.a.shape[1])

    @property
    def turned(self) -> bool:
        """Whether (B·A)ᵀ has it: Conv1D layers and embeddings are stored the other way round."""
        return len(self.shape) == 2 and self._is(self.a.shape[1], len(self.b))

    def _is(self, rows: int, columns: int) -> bool:
        return (self.shape[0], math.prod(self.shape[1:])) == (rows, columns)


def check_scales(config: Mapping[str, Any], shown: Path) -> None:
    """Raise InputError for a scale that is no finite number, and a pattern that is no regex or could run for ever."""
    patterns = {key: config.get(key) or {} for key in ("alpha_pattern", "rank_pattern")}
    for key, pattern in patterns.items():
        if not isinstance(pattern, dict):
            raise InputError(f"{shown}: {key} is not a map of patterns; save the adapter again")
        for text in pattern:
            try:
                re.compile(rf"(.*\.)?({text})$")
            except (re.error, RecursionError, OverflowError):
                raise InputError(f"{shown}: {key} has {text!r:.80}, which is not a regular expression") from None
            if NESTED.search(text) or len(REPEATS.findall(text)) > 3:
                raise InputError(f"{shown}: {key} has {text!r:.80}, which repeats too much; write a simpler pattern")
    for value in (config.get("lora_alpha", 8), *patterns["alpha_pattern"].values()):
        if type(value) not in (int, float) or not abs(value) < 1e30:
            raise InputError(f"{shown}: lora_alpha is {value!r:.80}, not a finite number; save the adapter again")


def low_ranks(
    config: Mapping[str, Any],
    factors: Mapping[str, Mapping[str, Tensor]],
    names: Mapping[str, str | None],
    shape_of: Callable[[str], tuple[int, ...]],
) -> tuple[dict[str, LowRank], list[str]]:
    """Return the change of each of the base's tensors that has factors, and a line for each that fits nowhere.

    `factors` maps a module to its A [r, …] and B [rows, r, …]; `names` gives the base's tensor of each.
    """
    pairs: list[_Pair] = []
    problems: list[str] = []
    for module, parts in factors.items():
        name = names[module]
        embedding = "embedding_A" in parts
        a, b = (parts.get(f"embedding_{part}" if embedding else part) for part in "AB")
        if name is None:
            problems.append(f"{module} has no place in the base")
        elif a is None or b is None or len(parts) > 2:
            problems.append(f"{module} has only factor {' and '.join(parts)}")
        elif (pair := _as_pair(module, name, a, b, shape_of(name), embedding)) is None:
            product = f"{list(b.shape)} · {list(a.shape)}"
            problems.append(f"{module}: {product} does not give the shape {list(shape_of(name))} of {name}")
        else:
            pairs.append(pair)
    changes: dict[str, LowRank] = {}
    for pair in pairs:
        turned = _is_turned(pair, pairs, bool(config.get("fan_in_fan_out")))
        if turned is None:
            problems.append(f"{pair.module} is square, and nothing tells which way round it is stored")
        elif pair.name in changes:
            problems.append(f"{pair.name} has the factors of two modules")
        else:
            changes[pair.name] = _product(config, pair, turned)
    return changes, problems


def _as_pair(module: str, name: str, a: Tensor, b: Tensor, shape: tuple[int, ...], embedding: bool) -> _Pair | None:
    if len(shape) < 2 or 0 in shape or b.dim() < 2 or a.dim() < 2 or 0 in a.shape or 0 in b.shape:
        return None
    if b[0].numel() != len(a):
        return None
    pair = _Pair(module, name, a.reshape(len(a), -1), b.reshape(len(b), -1), shape, embedding)
    return pair if (pair.turned if embedding else pair.straight or pair.turned) else None


def _is_turned(pair: _Pair, pairs: list[_Pair], declared: bool) -> bool | None:
    """Whether a module is stored the other way round; of a square one its namesakes in other layers know it.

    PEFT decides by the class of each layer and leaves in `fan_in_fan_out` what held for the last: where another
    module speaks against it, and no namesake helps, None.
    """
    if pair.embedding or not (pair.straight and pair.turned):
        return pair.turned
    telling = [other for other in pairs if other.straight != other.turned and not other.embedding]
    own = pair.module.rpartition(".")[2]
    namesakes = {other.turned for other in telling if other.module.rpartition(".")[2] == own}
    if len(namesakes) == 1:
        return namesakes.pop()
    others = {other.turned for other in telling if len(other.shape) == 2}
    return declared if others <= {declared} else None


def _product(config: Mapping[str, Any], pair: _Pair, turned: bool) -> LowRank:
    rank = len(pair.a)
    alpha = float(config.get("lora_alpha", 8))
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", pair.module):
            alpha = float(value)
            break
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    left, right = (pair.a.T, pair.b.T) if turned else (pair.b, pair.a)
    return LowRank(left.contiguous(), right.contiguous(), scale, pair.module, pair.embedding, turned)
