"""Learned coefficients: one number for each member and tensor, trained on forget, retain and validation rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.errors import InputError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import RowOutputs
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.method import Passes
from negmerge.unlearning.span import Span, likeness_loss, margins, mean_coefficients, sample

if TYPE_CHECKING:
    from torch import Tensor

KIND = "select"
NEEDS = ("pool", "forget", "retain", "validation")
SUMMARY = "a coefficient for each member and tensor, trained on forget, retain and validation rows"
REFERENCE = "in the spirit of Zhang et al., aTLAS, NeurIPS 2024 (arXiv 2407.02880); the loss is this project's"
REQUIRES = (RowOutputs,)


class Settings(BaseModel):
    """How the coefficients are trained."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    by: Literal["member", "layer", "tensor"] = Field(
        "tensor", description="what a member has a coefficient for each of"
    )
    start: float = Field(2.0, description="the sum of a tensor's coefficients at first; each member has its share")
    steps: int = Field(130, ge=1, description="steps of Adam")
    lr: float = Field(0.15, gt=0, description="its learning rate")
    batch_size: int = Field(160, ge=2, description="rows of each of the three parts in one step")
    samples: int = Field(2000, ge=2, description="retain rows, and validation rows, that are seen at all")
    distance: float = Field(0.5, ge=0, description="w: weight of what is still known of the forget rows")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through the model."""
    parts = ("forget", "retain", "validation")
    return Passes(settings.steps * sum(min(settings.batch_size, rows[part]) for part in parts))


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 1


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise over c [N, tensors], by Adam from c = start / N, with θ = θ₀ − Σᵢ cᵢ·τᵢ tensor by tensor

        w · W₁(m_θ(forget), m_θ₀(validation)) + CE_θ(retain) + KL(p_θ₀ ‖ p_θ)(validation)

    m are margins, the right answer's output less the largest other one; W₁ is the mean distance of the sorted margins
    of a batch to as many quantiles of the base's on validation rows. Where a class or a source is forgotten as a whole,
    log(1 + exp m) stands in its place: there is no margin to be had but a negative one. Batches are drawn from the
    seed. Where the row's statistics are estimated again, batch normalisation uses those of the batch, the three parts
    together. The vector that comes out is negated at an α that is chosen as for any merge: near 1, as it was trained.

    No model that was trained without the forget rows is looked at, but retain and validation rows are trained on. An
    interrupted training starts anew. Raises InputError where there are no validation rows, for adapters, for a
    projection (train it on the projected pool instead), and where the loss is not finite.

    Source: arXiv 2407.02880 for coefficients by block; the loss is this project's.
    """
    place = context.directory / ("batch-statistics" if context.recalibrates else "own-statistics")
    vector, file = place / "merged.safetensors", place / "learned.json"
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        facts = _learn(context, settings, vector)
        write_bytes_atomic(file, json.dumps({**facts, "seconds": time.perf_counter() - started}).encode())
    facts = json.loads(file.read_text())
    spent = {"pool": context.pool_seconds, "training": facts.pop("seconds")}
    selection = context.choose(vector, place / "merged.curve.json")
    return Outcome(
        vector=vector, selection=selection, facts={"learned": facts}, seconds={**spent, "selection": selection.seconds}
    )


def _learn(context: Context, settings: Settings, target: Path) -> dict[str, Any]:
    """Train the coefficients, write the vector, and return what is told of it."""
    import torch

    data = context.data
    if context.projecting is not None:
        raise InputError("learned-coefficients: a learned vector is not projected; write projection: none for this row")
    if not len(data.validation):
        raise InputError("learned-coefficients: there are no validation rows; give data.validation, or leave it out")
    if any(member.is_dir() for member in context.members):
        raise InputError("learned-coefficients: members are adapters; it takes whole models")
    span = Span(
        data.task,
        context.base,
        context.members,
        data.device,
        by=settings.by,
        own_statistics=context.recalibrates,
        include=context.include,
        exclude=context.exclude,
    )
    generator = torch.Generator().manual_seed(derive_seed(data.seed, "coefficients"))
    kept, unseen = (sample(rows, settings.samples, generator) for rows in (data.retain, data.validation))
    before, labels = span.base_outputs(unseen)
    goal = margins(before, labels)

    def loss(coefficients: Tensor, step: int) -> Tensor:
        gone = sample(data.forget, settings.batch_size, generator)
        stays = sample(kept, settings.batch_size, generator)
        at = torch.randperm(len(unseen), generator=generator)[: settings.batch_size]
        logits, right = span.outputs(coefficients, torch.cat([gone, stays, unseen[at]]))
        sizes, aim = (len(gone), len(stays), len(at)), before[at.to(before.device)].log_softmax(1)
        return likeness_loss(logits, right, sizes, None if data.whole else goal, aim, settings.distance)

    losses = span.minimise(
        loss, start=settings.start / len(context.members), steps=settings.steps, lr=settings.lr, tell=_tell(context)
    )
    write_state_dict(target, span.vector())
    tenth = max(1, len(losses) // 10)
    return {
        "coefficients": span.coefficients.numel(),
        "first_loss": sum(losses[:tenth]) / tenth,
        "last_loss": sum(losses[-tenth:]) / tenth,
        **mean_coefficients(span),
    }


def _tell(context: Context) -> Callable[[int, float], None]:
    def tell(step: int, loss: float) -> None:
        if step % 10 == 0:
            context.tell("step", number=step, loss=loss)

    return tell
