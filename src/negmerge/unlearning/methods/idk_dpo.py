"""IdkDPO: teach the model to prefer a refusal to the answer that is to be forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.tasks.task import Likelihood, Refuses, need
from negmerge.unlearning.context import Context, Outcome, TrainingData
from negmerge.unlearning.fitting import AdamSettings
from negmerge.unlearning.method import Passes
from negmerge.unlearning.pairing import fit_paired, paired_passes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "prefer a refusal, such as “I don't know.”, to the forget answer"
REFERENCE = "Maini et al., TOFU, COLM 2024 (arXiv 2401.06121); DPO, arXiv 2305.18290"
REQUIRES = (Likelihood, Refuses)
SEARCH = {"lr": (1e-5, 3e-5, 1e-4)}


class Settings(AdamSettings):
    """How to train; the learning rate is searched unless given."""

    beta: float = Field(0.1, gt=0, description="β: how far the preference may lead from the base")


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through the model: forget prompts with both answers, through the base as well."""
    return paired_passes(settings, rows, of_forget=2, frozen="forget")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise −(2/β) mean log σ(β [(log π − log π₀)(refusal) − (log π − log π₀)(answer)]) + λ · ℓ(retain).

    Each forget prompt gets one of a few refusals, drawn anew in every epoch. log π is the log-likelihood of a whole
    answer, log π₀ that of the base, which is kept beside the model.

    Raises NegmergeError where training diverges.

    Source: arXiv 2305.18290, equation 7, with TOFU's preferred answers.
    """
    import torch
    from torch.nn import functional

    def make(data: TrainingData) -> Any:
        likely, refusing = need(data.task, Likelihood, "idk-dpo"), need(data.task, Refuses, "idk-dpo")
        frozen = data.task.open(context.base, data.device).requires_grad_(False)

        def gained(model: nn.Module, batch: Any) -> Tensor:
            with torch.no_grad():
                before, _ = likely.likelihoods(frozen, batch)
            return likely.likelihoods(model, batch)[0] - before

        def forget_loss(model: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
            better = gained(model, refusing.refuse(batch, generator)) - gained(model, batch)
            return -2.0 / settings.beta * functional.logsigmoid(settings.beta * better).mean()

        return forget_loss, None, None

    return fit_paired(context, settings, make)
