"""SISA: train in shards and slices from the start, so that only what a row has touched is trained again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Ensembles, Starts, need
from negmerge.training import TrainSettings
from negmerge.unlearning.context import Context, Outcome, TrainingTask

if TYPE_CHECKING:
    from torch import Tensor

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "an ensemble trained in shards and slices; those that held forget rows are trained again: exact"
REFERENCE = "Bourtoule et al., Machine Unlearning, S&P 2021 (arXiv 1912.03817)"

REQUIRES = (Starts, Ensembles)
SCRATCH = True


class Settings(BaseModel):
    """How the training rows are cut, and how a shard is trained."""

    model_config = ConfigDict(extra="forbid")

    shards: int = Field(5, ge=1, description="models in the ensemble, each trained on its own share of the rows")
    slices: int = Field(3, ge=1, description="parts of a shard, added one after the other")
    train: TrainSettings | None = Field(None, description="training settings; those of the base unless given")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Return the ensemble that SISA holds after the request to forget, and the time that the request takes.

    All training rows are dealt to shards, and each shard's to slices, by the seed alone. A shard is trained on slice 1,
    then from there on slices 1–2, and so on. To forget, a shard goes back to its state before the first slice that
    holds a forget row and repeats the rest without these rows. That state never saw one, so training from scratch
    without the forget rows passes through it: this is what is done here, and `seconds` count the steps from the first
    touched slice on; those before it belong to the original training (`kept_seconds`). The answer is the mean of the
    shards' probabilities.

    With R slices each step trains round(2e / (R + 1)) epochs, at least 1, so that a shard makes as many passes as e
    epochs on all its rows. Without training settings of its own the method takes those of the base.

    Raises InputError where a shard's first slice is left with fewer than two rows.

    Source: arXiv 1912.03817, sections IV and V.
    """
    import torch

    data, together = context.data, need(context.data.task, Ensembles, "sisa")
    everything = torch.cat([data.retain, data.forget]).sort().values
    parts = deal(everything, settings.shards, settings.slices, derive_seed(data.seed, "shards"))
    checkpoint = context.directory / "model.safetensors"
    states, spent, kept, repeated = [], 0.0, 0.0, 0
    for index, slices in enumerate(parts):
        left = [part[~torch.isin(part, data.forget)] for part in slices]
        touched = next((r for r, part in enumerate(left) if len(part) < len(slices[r])), settings.slices)
        start = None
        for r in range(settings.slices):
            rows = torch.cat(left[: r + 1]).sort().values
            if len(rows) < 2:
                raise InputError(
                    f"sisa: shard {index + 1} has {len(rows)} row(s) in its first {r + 1} slice(s) once the forget "
                    "rows are gone; lower shards or slices"
                )
            name = f"shard {index + 1} of {settings.shards}, slice {r + 1} of {settings.slices}"
            folder = context.directory / f"shard-{index}" / f"slice-{r}"
            start, seconds = context.train(
                TrainingTask(name, folder, rows, settings.train, start, epochs_factor=2 / (settings.slices + 1))
            )
            if r >= touched:
                spent, repeated = spent + seconds, repeated + 1
            else:
                kept += seconds
        assert start is not None
        states.append(read_state_dict(start))
    write_state_dict(checkpoint, together.join(states))
    facts = {"repeated_slices": repeated, "all_slices": settings.shards * settings.slices, "kept_seconds": kept}
    return Outcome(checkpoint=checkpoint, facts=facts, seconds={"training": spent})


def deal(rows: Tensor, shards: int, slices: int, seed: int) -> list[list[Tensor]]:
    """Return `shards` lists of `slices` parts of `rows`, whose sizes differ by one at most at either level.

    The order is a permutation drawn from the seed; every row is in exactly one part.
    """
    import torch

    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    return [list(shard.tensor_split(slices)) for shard in order.tensor_split(shards)]
