"""MSA: negation of task vectors that were taken at an earlier model than the one that forgets, its origin."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.training.pool import expand_grid
from negmerge.unlearning import negation
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.merge_choice import MergeChoice
from negmerge.unlearning.method import OwnPool
from negmerge.unlearning.negation import MergedVector

KIND = "select"
NEEDS = ("forget", "retain")
SUMMARY = "task vectors of a pool that is trained from an earlier model, on forget rows and, against it, on others"
REFERENCE = "Model State Arithmetic (arXiv 2506.20941)"


class Settings(MergeChoice):
    """Where vectors are taken, how they are merged, and how far what retain rows teach is added."""

    origin: Literal["start", "base"] | Path = Field(
        "start", description="what the members are trained from: where the base's training began, the base, or a file"
    )
    retain: float = Field(0.0, ge=0, description="β / α: what members trained on retain rows are added by")
    grid: dict[str, list[Any]] | None = Field(None, description="of the members; the pool's unless given")

    @field_validator("grid")
    @classmethod
    def _expands(cls, value: dict[str, list[Any]] | None) -> dict[str, list[Any]] | None:
        expand_grid({}, value or {})
        return value


def needs(settings: Settings) -> tuple[str, ...]:
    """Return the data that it uses."""
    return ("forget", "retain") if settings.retain else ("forget",)


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 1


def pools(settings: Settings) -> Sequence[OwnPool]:
    """Return the pools that it trains."""
    return [OwnPool(settings.grid, part, str(settings.origin)) for part in needs(settings)]


def files(settings: Settings) -> Sequence[Path]:
    """Return the files that it reads."""
    return [settings.origin] if isinstance(settings.origin, Path) else []


def begins(settings: Settings) -> bool:
    """Return whether it asks where the base began."""
    return settings.origin == "start"


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Return θ₀ − α·(τ_f − ρ·τ_r), that is θ₀ − α·τ_f + β·τ_r with β = ρ·α, α chosen as for any merge.

        τ_f = method(θᵢ − o),  θᵢ the pool's members fine-tuned from the origin o on the forget rows;
        τ_r = method(θᵢ′ − o),  θᵢ′ their twins: the same settings and batches, on as many retain rows, a seeded sample

    ρ = `retain`; at 0 no twin is trained. With the base as origin and ρ = 1 this is the contrast of each member with
    its twin. What diverges is left out. Members are trained once for all rows of the result table with the same
    origin and grid; their time counts in each. Raises InputError for an origin that does not fit.

    Source: arXiv 2506.20941.
    """
    origin = _origin(context, settings)
    members, seconds = context.train_pool(origin, context.data.forget, settings.grid)
    named = None if origin == context.base else origin
    forget = negation.merge(context, settings.method, settings.settings, members, "forget", origin=named)
    if settings.retain:
        twins, more = context.train_pool(origin, context.data.twin_rows(), settings.grid)
        retain = negation.merge(context, settings.method, settings.settings, twins, "retain", origin=named)
        forget = _difference(context, forget, retain, settings.retain)
        seconds += more
    return negation.choose(context, forget, {"pool": seconds})


def _origin(context: Context, settings: Settings) -> Path:
    if settings.origin == "base":
        return context.base
    if settings.origin == "start":
        return context.start()
    assert isinstance(settings.origin, Path)
    context.data.task.open(settings.origin)
    return settings.origin


def _difference(context: Context, forget: MergedVector, retain: MergedVector, ratio: float) -> MergedVector:
    """Return τ_f − ρ·τ_r in a file, made unless it is there."""
    target = context.directory / "contrast.safetensors"
    facts_file = target.with_suffix(".json")
    if not facts_file.exists():
        started = time.perf_counter()
        found, other = read_state_dict(forget.file), open_checkpoint(retain.file)
        try:
            for name, value in found.items():
                value.sub_(other.read(name).reshape(value.shape), alpha=ratio)
        finally:
            other.close()
        write_state_dict(target, found)
        write_bytes_atomic(facts_file, json.dumps({"seconds": time.perf_counter() - started}).encode())
    own: float = json.loads(facts_file.read_text())["seconds"]
    return replace(forget, file=target, seconds=forget.seconds + retain.seconds + own)
