"""Gradient ascent: raise the loss on what is to be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, batches_of, fit_base

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget",)
SUMMARY = "raise the loss on the forget rows, step by step"
REFERENCE = "Thudi et al., Unrolling SGD, EuroS&P 2022 (arXiv 2109.13398)"
SEARCH = {"lr": (5e-4, 7e-4, 1e-3)}


class Settings(SgdSettings):
    """How to train; the learning rate is searched unless given."""

    lr: float = Field(7e-4, gt=0, description="learning rate, the same in every step")
    epochs: int = Field(5, ge=1, description="passes over the forget rows")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Maximise the cross-entropy on the forget rows, from the base: θ ← θ + η · ∇ mean over D_f of CE(θ).

    Weight decay still pulls towards zero. The loss has no upper bound: a large learning rate ruins the model, which
    the search sees in its retain accuracy.

    Raises NegmergeError where the loss or a weight is no longer finite.

    Source: the row GA of SalUn (arXiv 2310.12508).
    """

    def prepare() -> Fitting:
        batches = batches_of(context.data, context.data.forget, settings, "forget")
        descent = context.data.task.loss

        def ascent(model: nn.Module, batch: Any) -> Tensor:
            return -descent(model, batch)

        return Fitting(batches, batches.steps, loss=ascent)

    return fit_base(context, settings, prepare)
