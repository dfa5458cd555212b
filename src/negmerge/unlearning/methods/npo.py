"""NPO: negative preference optimisation, gradient ascent that fades where the answer has become unlikely."""

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
SUMMARY = "treat the forget answers as what a preference rejects, measured against the base"
REFERENCE = "Zhang et al., Negative Preference Optimization, COLM 2024 (arXiv 2404.05868)"
REQUIRES = (Likelihood,)
SEARCH = {"lr": (1e-5, 3e-5, 1e-4)}


class Settings(AdamSettings):
    """How to train; the learning rate is searched unless given."""

    beta: float = Field(0.1, gt=0, description="β: how fast the push fades; towards 0 it is gradient ascent")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through the model; forget rows pass through the base as well."""
    return paired_passes(settings, rows, frozen="forget")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise −(2/β) mean log σ(−β (log π − log π₀)) + λ · ℓ(retain) from the base.

    log π is the log-likelihood of a whole forget answer, log π₀ that of the base, which is kept beside the model.

    Raises NegmergeError where training diverges.

    Source: arXiv 2404.05868, equation 3.
    """
    import torch
    from torch.nn import functional

    def make(data: TrainingData) -> Any:
        likely = need(data.task, Likelihood, "npo")
        frozen = data.task.open(context.base, data.device).requires_grad_(False)

        def forget_loss(model: nn.Module, batch: Any, generator: object) -> Tensor:
            with torch.no_grad():
                before, _ = likely.likelihoods(frozen, batch)
            now, _ = likely.likelihoods(model, batch)
            return -2.0 / settings.beta * functional.logsigmoid(-settings.beta * (now - before)).mean()

        return forget_loss, None, None

    return fit_paired(context, settings, make)
