"""Importance-weighted negation: a merged vector, each element by how much more it matters to the forget rows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from negmerge.checkpoints import hash_file, write_bytes_atomic, write_state_dict
from negmerge.seeding import derive_seed
from negmerge.tasks.task import RowLosses
from negmerge.unlearning import negation
from negmerge.unlearning.context import Context, Outcome, TrainingData
from negmerge.unlearning.gradients import fisher_diagonal, trained_parameters
from negmerge.unlearning.merge_choice import MergeChoice
from negmerge.unlearning.method import Passes

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "select"
NEEDS = ("pool", "forget", "retain", "validation")
SUMMARY = "a merged vector, each element weighted by its Fisher information on forget against retain rows"
REFERENCE = "the Fisher-weighted task vector of arXiv 2601.22030, of any merge"
REQUIRES = (RowLosses,)


class Settings(MergeChoice):
    """What is merged, and how its elements are weighted."""

    weight: float = Field(1.0, ge=0, description="a: what importance for the other rows counts; 0: it does not")
    epsilon: float = Field(
        1e-6, ge=0, description="ε in units of the mean of F_f: elements far below it keep little of their step"
    )
    against: Literal["retain", "validation"] = Field("retain", description="the other rows: F_r is theirs")
    samples: int = Field(40, ge=1, description="forget rows, and as many of the others, whose gradients are taken")


def needs(settings: Settings) -> tuple[str, ...]:
    """Return the data that it uses: the other rows only where they count."""
    return ("pool", "forget", settings.against) if settings.weight else ("pool", "forget")


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 1


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows whose gradients are taken, once for all rows of the table."""
    parts = [part for part in needs(settings) if part != "pool"]
    return Passes(0, shared=sum(min(settings.samples, rows[part]) for part in parts))


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Negate w ⊙ method(τ₁ … τ_N) at the α chosen for it.

        w(j) = F_f(j) / (F_f(j) + a·F_r(j) + ε)

    F are the diagonals of the empirical Fisher information at the base, the mean over rows of the squared gradient of
    each row's loss, on seeded samples of forget and of other rows, the model in evaluation mode; ε is `epsilon` times
    the mean of F_f over all parameters. Where all three are 0, w is 0. What is no parameter (running statistics that
    are negated) has weight 1, a tied tensor that of its first name. Rows of the result table share the
    weights. An interrupted computation of gradients starts anew.

    Source: second-hand of arXiv 2601.22030; the scale of ε is this project's.
    """
    weights, seconds = _weights(context, settings)
    merged = negation.merge(context, settings.method, settings.settings, context.members, "merged", weights=weights)
    return negation.choose(context, merged, {"pool": context.pool_seconds, "importance": seconds})


def importance_of(own: list[Tensor], other: list[Tensor] | None, weight: float, epsilon: float) -> list[Tensor]:
    """Return w = F_f / (F_f + a·F_r + ε) for each tensor, 0 where that is 0 / 0; `other` None stands for zeros.

    >>> import torch
    >>> importance_of([torch.tensor([3.0, 1.0, 0.0])], [torch.tensor([1.0, 0.0, 0.0])], 3.0, 0.0)
    [tensor([0.5000, 1.0000, 0.0000])]
    """
    import torch

    mean = sum(float(values.sum(dtype=torch.float64)) for values in own) / max(1, sum(v.numel() for v in own))
    found = []
    for i, values in enumerate(own):
        whole = values + epsilon * mean if other is None else values + weight * other[i] + epsilon * mean
        found.append(torch.where(whole > 0, values / whole, 0.0))
    return found


def _weights(context: Context, settings: Settings) -> tuple[Path, float]:
    """Return the file of w under the base's names, made unless it is there, and the seconds that it took."""
    data = context.data
    parts = {"forget": data.forget}
    if settings.weight:
        parts[settings.against] = data.retain if settings.against == "retain" else data.validation
    rows = {part: _sample(data, part, own, settings.samples) for part, own in parts.items()}
    key = hashlib.sha256(f"{hash_file(context.base)} {settings.weight!r} {settings.epsilon!r}".encode())
    for part, own in rows.items():
        key.update(f"{part} {own.tolist()}".encode())
    file = context.common / f"importance-{key.hexdigest()[:16]}.safetensors"
    facts_file = file.with_suffix(".json")
    if not facts_file.exists():
        started = time.perf_counter()
        model = data.task.open(context.base, data.device)
        fishers = [fisher_diagonal(data, model, some) for some in rows.values()]
        other = fishers[1] if len(fishers) > 1 else None
        values = importance_of(fishers[0], other, settings.weight, settings.epsilon)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_state_dict(file, _by_name(model, values))
        write_bytes_atomic(facts_file, json.dumps({"seconds": time.perf_counter() - started}).encode())
    return file, json.loads(facts_file.read_text())["seconds"]


def _sample(data: TrainingData, part: str, rows: Tensor, most: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(derive_seed(data.seed, "importance", part))
    return rows[torch.randperm(len(rows), generator=generator)[:most].sort().values]


def _by_name(model: nn.Module, values: list[Tensor]) -> dict[str, Tensor]:
    """Return a weight for every floating-point tensor of the model: those of parameters, and 1 for all others."""
    import torch

    owners = {p.data_ptr(): value for p, value in zip(trained_parameters(model), values, strict=True)}
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    found = {name: owners.get(value.data_ptr(), torch.ones_like(value)) for name, value in state.items()}
    return {name: value.detach().float().cpu().contiguous().clone() for name, value in found.items()}
