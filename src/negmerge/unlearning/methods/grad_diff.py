"""GradDiff: raise the loss on what is to be forgotten, hold it on what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from negmerge.unlearning.context import Context, Outcome, TrainingData
from negmerge.unlearning.fitting import AdamSettings
from negmerge.unlearning.method import Passes
from negmerge.unlearning.pairing import fit_paired, paired_passes

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "raise the loss on the forget rows while lowering it on as many retain rows"
REFERENCE = "Liu et al., Continual Learning and Private Unlearning, CoLLAs 2022 (arXiv 2203.12817)"
SEARCH = {"lr": (1e-5, 3e-5, 1e-4)}


class Settings(AdamSettings):
    """How to train; the learning rate is searched unless given."""


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through the model."""
    return paired_passes(settings, rows)


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise −ℓ(forget) + λ · ℓ(retain) from the base, ℓ the task's own loss.

    The first term has no lower bound: a large learning rate ruins the model, which the search sees in its retain score.

    Raises NegmergeError where training diverges.

    Source: the row GradDiff of TOFU (arXiv 2401.06121).
    """

    def make(data: TrainingData) -> Any:
        def forget_loss(model: nn.Module, batch: Any, generator: object) -> Tensor:
            return -data.task.loss(model, batch)

        return forget_loss, None, None

    return fit_paired(context, settings, make)
