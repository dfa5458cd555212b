"""ℓ1-sparse: fine-tuning on the retain rows with a penalty that makes weights small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, batches_of, fit_base

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("retain",)
SUMMARY = "fine-tune on the retain rows with an ℓ1 penalty on the weights that fades to nothing"
REFERENCE = "Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023 (arXiv 2304.04934)"
SEARCH = {"gamma": (1e-6, 1e-5, 1e-4)}


class Settings(SgdSettings):
    """How to train; the penalty is searched unless given."""

    gamma: float = Field(1e-5, ge=0, description="weight of the penalty in the first epoch")


def penalty(gamma: float, epoch: int, epochs: int) -> float:
    """Return the weight of the penalty in an epoch (from 0): γ · (1 − epoch / epochs), γ at first, 0 after the last.

    >>> [penalty(1.0, epoch, 4) for epoch in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    return gamma * (1.0 - epoch / epochs)


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise mean over D_r of CE(θ) + γ(epoch) · ‖θ‖₁ from the base, with γ falling linearly to 0.

    The norm is the sum of |θⱼ| over all trained parameters, biases and normalisation included; its gradient at an
    exact zero is 0.

    Raises NegmergeError where training diverges.

    Source: arXiv 2304.04934, the objective of ℓ1-sparse MU.
    """

    def prepare() -> Fitting:
        rows = batches_of(context.data, context.data.retain, settings, "retain")
        fit_to_rows = context.data.task.loss

        def batches(epoch: int) -> Iterator[tuple[Any, float]]:
            weight = penalty(settings.gamma, epoch, settings.epochs)
            return ((batch, weight) for batch in rows(epoch))

        def loss(model: nn.Module, weighted: tuple[Any, float]) -> Tensor:
            batch, weight = weighted
            return fit_to_rows(model, batch) + weight * l1_norm(model)

        return Fitting(batches, rows.steps, loss=loss)

    return fit_base(context, settings, prepare)


def l1_norm(model: nn.Module) -> Tensor:
    """Return the sum of the magnitudes of all trained parameters, a scalar."""
    norms = [parameter.abs().sum() for parameter in model.parameters() if parameter.requires_grad]
    return sum(norms[1:], start=norms[0])
