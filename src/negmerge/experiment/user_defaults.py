"""What is done with a user's own module unless he says otherwise: projection, and running statistics after a merge."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from negmerge.experiment.config import PoolConfig
from negmerge.experiment.methods import LIKE_UNSEEN, describe
from negmerge.experiment.projection_config import ProjectionConfig
from negmerge.projection.collecting import survey
from negmerge.selection.buffers import has_statistics
from negmerge.tasks.user.checking import is_drawn_among
from negmerge.tasks.user.task import UserTask
from negmerge.training.pool import expand_grid

STRENGTHS = {  # of the projection, by objective; measured in docs/results/projection.md and random-rows.md
    "retain-floor": [1.0, 10.0, 100.0],
    "match-holdout": [1.0, 10.0],
    "match-reference": [1.0, 10.0],
}
LEAST = 100  # forget rows whose statistics may stand in the model; measured with 144 and 1,000 (docs/merging.md)


def can_project(task: UserTask, given: Mapping[str, Any], method: str) -> bool:
    """Return whether a method's vector can be projected on the data set `retain`."""
    if "retain" not in given or describe(method).kind == "train":
        return False
    model = task.template().eval()
    return bool(survey(model, task.run_model, task.batch(torch.zeros(1, dtype=torch.int64), str(task.device))).layers)


def default_projection(objective: str) -> dict[str, Any] | None:
    """Return the projection of rows whose α is chosen by an objective; None where none was measured."""
    strengths = STRENGTHS.get(objective)
    return None if strengths is None else ProjectionConfig(strength=strengths).model_dump(mode="json")


def default_buffers(
    task: UserTask, objective: str, pool: PoolConfig, method: str
) -> Literal["keep"] | dict[str, Literal["forget"]]:
    """Return what becomes of running statistics: estimated again on forget rows where single rows are to be forgotten.

    That is, where α is chosen by what unseen rows or Retrain show (match-holdout, match-reference), the forget rows are
    at least 100 and drawn among others of their classes, and members of whole tensors have moved their statistics.
    Those of the base are kept everywhere else.
    """
    if objective not in LIKE_UNSEEN or describe(method).kind == "train":
        return "keep"
    if pool.adapter is not None or all(m.settings.freeze_statistics for m in expand_grid(pool.train, pool.grid)):
        return "keep"
    if len(task.parts()["forget"]) < LEAST or not has_statistics(task.template()) or not is_drawn_among(task):
        return "keep"
    return {"recalibrate": "forget"}
