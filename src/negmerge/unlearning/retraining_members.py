"""Members of a pool trained once more: the same settings and batches on other rows, or from another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from negmerge.errors import InputError
from negmerge.training import TrainSettings
from negmerge.unlearning.context import Context, TrainingTask

if TYPE_CHECKING:
    from torch import Tensor


def train_like(
    context: Context, member: Path, directory: Path, rows: Tensor, *, start: Path, share: float = 1.0
) -> tuple[Path, float]:
    """Train as a member was trained, on these rows and from `start`; return the checkpoint and its seconds.

    Settings, seed and therefore the order of batches are the member's; its epochs are multiplied by `share`. Raises
    InputError for an adapter, and for a member that was not trained by a run.
    """
    facts_file = member.parent / "training.json"
    if member.is_dir():
        raise InputError(f"{member} is an adapter; members are trained once more as whole models only")
    if not facts_file.exists():
        raise InputError(f"{member} was not trained by this run, so nobody knows its settings; leave this method out")
    settings = TrainSettings(**json.loads(facts_file.read_text())["settings"])
    if settings.steps is not None:
        settings = settings.model_copy(update={"steps": max(1, round(share * settings.steps))})
    # The name is what the seed is derived by.
    task = TrainingTask(f"member {member.parent.name}", directory, rows, settings, start, share)
    return context.train(task)
