"""Checkpoints moved along task vectors, and merged vectors added up: what methods make before or after a merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_state_dict

if TYPE_CHECKING:
    from torch import Tensor


def write_displaced(target: Path, base: Path, terms: Sequence[tuple[float, Path]]) -> None:
    """Write θ₀ + Σ c·(θ − θ₀) for the terms (c, θ), tensor by tensor, in float32 (float64 for float64 weights).

    So a merge of such files merges what the coefficients make of the task vectors: with c = −1 it is added where it
    would be subtracted. Integers and booleans are the base's. Every θ has the names and shapes of the base.
    """
    import torch

    others = [(factor, open_checkpoint(path)) for factor, path in terms]
    moved: dict[str, Tensor] = {}
    for name, origin in read_state_dict(base).items():
        if not origin.is_floating_point():
            moved[name] = origin
            continue
        wide = torch.float64 if origin.dtype == torch.float64 else torch.float32
        start = origin.to(wide)
        total = start.clone()
        for factor, other in others:
            total += factor * (other.read(name).reshape(origin.shape).to(wide) - start)
        moved[name] = total
    write_state_dict(target, moved)


def write_sum(target: Path, terms: Sequence[tuple[float, Path]]) -> None:
    """Write Σ c·τ for the terms (c, τ), merged vectors in files; a name that one of them lacks is 0 there."""
    total: dict[str, Tensor] = {}
    for factor, path in terms:
        for name, delta in read_state_dict(path).items():
            total[name] = factor * delta if name not in total else total[name] + factor * delta
    write_state_dict(target, total)


def write_scaled(target: Path, vector: Path, factors: Mapping[str, float]) -> None:
    """Write a merged vector with each tensor multiplied by its factor; 1 where it has none."""
    write_state_dict(target, {name: factors.get(name, 1.0) * delta for name, delta in read_state_dict(vector).items()})
