"""SimNPO: negative preference optimisation by length, without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.tasks.task import Likelihood, need
from negmerge.unlearning.context import Context, Outcome, TrainingData
from negmerge.unlearning.fitting import AdamSettings
from negmerge.unlearning.method import Passes
from negmerge.unlearning.pairing import fit_paired, paired_passes

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "NPO with the likelihood of a token in the place of that of the answer, and no base beside it"
REFERENCE = "Fan et al., Simplicity Prevails, NeurIPS 2025 (arXiv 2410.07163)"
REQUIRES = (Likelihood,)
SEARCH = {"lr": (1e-5, 3e-5, 1e-4)}


class Settings(AdamSettings):
    """How to train; the learning rate is searched unless given."""

    beta: float = Field(4.5, gt=0, description="β: how fast the push fades")
    delta: float = Field(0.0, ge=0, description="δ: the loss per token, in nats, beyond which the push fades")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through the model."""
    return paired_passes(settings, rows)


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise −(2/β) mean log σ(−(β/|y|) log π − δβ) + λ · ℓ(retain) from the base.

    log π is the log-likelihood of a forget answer of |y| tokens.

    Raises NegmergeError where training diverges.

    Source: arXiv 2410.07163, equation 4.
    """
    from torch.nn import functional

    def make(data: TrainingData) -> Any:
        likely = need(data.task, Likelihood, "simnpo")

        def forget_loss(model: nn.Module, batch: Any, generator: object) -> Tensor:
            sums, counts = likely.likelihoods(model, batch)
            push = functional.logsigmoid(settings.beta * (-sums / counts - settings.delta))
            return -2.0 / settings.beta * push.mean()

        return forget_loss, None, None

    return fit_paired(context, settings, make)
