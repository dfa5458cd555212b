"""SSD: selective synaptic dampening, which makes weights smaller that matter for the forget rows above all."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.seeding import derive_seed
from negmerge.tasks.task import RowLosses
from negmerge.unlearning.context import SHARED, Context, Outcome, TrainingData
from negmerge.unlearning.fitting import write_weights
from negmerge.unlearning.gradients import fisher_diagonal, trained_parameters
from negmerge.unlearning.method import Passes

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "make those weights smaller that matter more for the forget rows than for all rows; no training"
REFERENCE = "Foster et al., Fast Machine Unlearning Without Retraining, AAAI 2024 (arXiv 2308.07707)"
REQUIRES = (RowLosses,)
SEARCH = {"threshold": (2.0, 5.0, 10.0, 25.0)}


class Settings(BaseModel):
    """Which weights are dampened, and how far; the threshold is searched unless given."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    threshold: float = Field(10.0, gt=0, description="α: weights are chosen whose importance is so many times larger")
    strength: float = Field(1.0, gt=0, description="λ: the larger, the less they are dampened")
    samples: int = Field(500, ge=1, description="forget rows, and as many of all rows, whose gradients are taken")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows whose gradients are taken, once for all thresholds."""
    gone = rows["forget"]
    return Passes(0, shared=min(settings.samples, gone) + min(settings.samples, gone + rows["retain"]))


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Set θⱼ ← min(λ · F_D(j) / F_f(j), 1) · θⱼ where F_f(j) > α · F_D(j); other weights stay.

    F are the diagonals of the empirical Fisher information, the mean over rows of the squared gradient of each row's
    loss, on forget rows and on a seeded sample of all rows, forget and retain, the model in evaluation mode. They are
    taken once for all thresholds of a search, and kept. An interrupted computation starts anew. Raises NegmergeError
    where a weight is not finite.

    Source: arXiv 2308.07707, equations 5 and 6.
    """
    checkpoint, facts_file = context.directory / "model.safetensors", context.directory / "dampening.json"
    if not facts_file.exists():
        context.directory.mkdir(parents=True, exist_ok=True)
        model = context.data.task.open(context.base, context.data.device)
        parameters = trained_parameters(model)
        own, every, spent = _fishers(context, settings.samples, model)
        started = time.perf_counter()
        chosen = dampen(parameters, own, every, settings.threshold, settings.strength)
        write_weights(checkpoint, model)
        seconds = {"training": time.perf_counter() - started, SHARED: spent}
        facts = {"seconds": seconds, "dampened": chosen / sum(p.numel() for p in parameters)}
        write_bytes_atomic(facts_file, json.dumps(facts).encode())
    facts = json.loads(facts_file.read_text())
    return Outcome(checkpoint=checkpoint, facts={"dampened": facts["dampened"]}, seconds=facts["seconds"])


def _fishers(context: Context, samples: int, model: nn.Module) -> tuple[list[Tensor], list[Tensor], float]:
    """Return both diagonals at the base, from the shared folder where they are there, and the seconds they took."""
    data, folder = context.data, context.shared / f"ssd-{samples}"
    file, facts_file = folder / "fisher.safetensors", folder / "fisher.json"
    if not facts_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        found = [fisher_diagonal(data, model, rows) for rows in _samples(data, samples)]
        state = {f"{k} {i}": value.cpu().contiguous() for k in (0, 1) for i, value in enumerate(found[k])}
        write_state_dict(file, state)
        write_bytes_atomic(facts_file, json.dumps({"seconds": time.perf_counter() - started}).encode())
    state, parameters = read_state_dict(file), trained_parameters(model)
    own, every = ([state[f"{k} {i}"].to(p.device) for i, p in enumerate(parameters)] for k in (0, 1))
    return own, every, json.loads(facts_file.read_text())["seconds"]


def _samples(data: TrainingData, most: int) -> tuple[Tensor, Tensor]:
    import torch

    def some(rows: Tensor, part: str) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(data.seed, part))
        return rows[torch.randperm(len(rows), generator=generator)[:most].sort().values]

    return some(data.forget, "forget"), some(torch.cat([data.forget, data.retain]).sort().values, "all")


def dampen(
    weights: Sequence[Tensor], own: Sequence[Tensor], every: Sequence[Tensor], threshold: float, strength: float
) -> int:
    """Dampen weights in place, as `unlearn` says, and return how many were chosen; the lists are of the same shapes.

    >>> import torch
    >>> weight = torch.tensor([1.0, 1.0, 1.0])
    >>> dampen([weight], [torch.tensor([4.0, 1.0, 0.0])], [torch.tensor([1.0, 1.0, 0.0])], 2.0, 1.0), weight
    (1, tensor([0.2500, 1.0000, 1.0000]))
    """
    import torch

    chosen = 0
    with torch.no_grad():
        for weight, of_forget, of_all in zip(weights, own, every, strict=True):
            picked = of_forget > threshold * of_all
            factor = (strength * of_all / of_forget.clamp(min=torch.finfo(of_forget.dtype).tiny)).clamp(max=1.0)
            weight.copy_(torch.where(picked, weight * factor, weight))
            chosen += int(picked.sum())
    return chosen
