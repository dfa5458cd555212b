"""Boundary shrink: each forget row is given to the class across its nearest boundary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.tasks.task import Classifies, Pixels, need
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, batches_of, fit_base
from negmerge.unlearning.method import Passes

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget",)
SUMMARY = "train the forget rows towards the nearest other class, found by one step across the boundary"
REFERENCE = "Chen et al., Boundary Unlearning, CVPR 2023 (arXiv 2303.11570)"
REQUIRES = (Classifies, Pixels)
SEARCH = {"lr": (1e-5, 1e-4, 1e-3, 1e-2)}


class Settings(SgdSettings):
    """How to train, and how far the step across the boundary goes."""

    lr: float = Field(1e-4, gt=0, description="learning rate, the same in every step")
    bound: float = Field(0.1, gt=0, le=1, description="the step in every pixel, as a share of black to white")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through the model and, twice, through the base: for its gradient, and a step away."""
    passed = settings.epochs * rows["forget"]
    return Passes(2 * passed, evaluated=passed)


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise the cross-entropy of the forget rows with the labels of their nearest other class.

    The class is that across the nearest boundary of the rows of each step, by a frozen copy of the base.

    Raises NegmergeError where training diverges.

    Source: arXiv 2303.11570, section 3.2.
    """

    def prepare() -> Fitting:
        data = context.data
        moving, labelled = need(data.task, Pixels, "boundary-shrink"), need(data.task, Classifies, "boundary-shrink")
        frozen = data.task.open(context.base, data.device).eval()
        batches = batches_of(data, data.forget, settings, "forget")

        def loss(model: nn.Module, batch: Any) -> Tensor:
            nearest = moving.nearest_labels(frozen, batch, settings.bound)
            return data.task.loss(model, labelled.relabel(batch, nearest))

        return Fitting(batches, batches.steps, loss=loss)

    return fit_base(context, settings, prepare)
