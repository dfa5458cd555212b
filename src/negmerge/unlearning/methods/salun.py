"""SalUn: random labels, learned by the salient half of the weights alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from negmerge.tasks.task import Classifies, RowLosses
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, fit_base
from negmerge.unlearning.gradients import mean_gradient, row_losses, trained_parameters
from negmerge.unlearning.method import Passes
from negmerge.unlearning.relabelling import random_label_batches

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "random labels, learned only by the half of the weights that matter most for the forget rows"
REFERENCE = "Fan et al., SalUn, ICLR 2024 (arXiv 2310.12508)"
REQUIRES = (Classifies, RowLosses)
SEARCH = {"lr": (1e-4, 1e-3, 1.3e-2, 1e-1)}  # the published 0.013 serves with retain rows; without them it is too much


class Settings(SgdSettings):
    """How to train, and how much of the model; the learning rate is searched unless given."""

    lr: float = Field(0.013, gt=0, description="learning rate, the same in every step")
    share: float = Field(0.5, gt=0, le=1, description="share of the weights that are trained")
    retain: bool = Field(True, description="whether each epoch also passes over the retain rows")


def needs(settings: Settings) -> tuple[str, ...]:
    """Return the data that the method uses with these settings."""
    return NEEDS if settings.retain else ("forget",)


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that pass through training, and the forget rows whose gradients make the mask."""
    used = sum(rows[part] for part in needs(settings))
    return Passes(settings.epochs * used + rows["forget"])


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Train as random-labels does, with the mask m = 1[|∇ CE on D_f at θ₀| ≥ k-th largest], k = ⌈share · n⌉.

    θ = m ⊙ (θ₀ + Δθ) + (1 − m) ⊙ θ₀: a weight outside the mask keeps every bit, whatever weight decay and momentum
    would do to it. The gradient is that of the mean over all forget rows, the model in evaluation mode. Running
    statistics are no weights: they follow the training.

    Raises NegmergeError where training diverges.

    Source: arXiv 2310.12508, equations 3 to 5.
    """

    def prepare() -> Fitting:
        data = context.data
        batches, steps = random_label_batches(data, settings, settings.retain)
        model = data.task.open(context.base, data.device)
        parameters = trained_parameters(model)
        gradients = mean_gradient(partial(row_losses, data, model), parameters, data.forget)
        before_step, after_step = holding(parameters, salience_mask(gradients, settings.share))
        return Fitting(batches, steps, model=model, before_step=before_step, after_step=after_step)

    return fit_base(context, settings, prepare)


def salience_mask(gradients: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return for each gradient the mask of the elements whose magnitude reaches the k-th largest of them all.

        k = ⌈share · n⌉;  mask(j) = |g(j)| ≥ γ, γ the k-th largest of |g| over all n elements of all tensors

    gradients: tensors of any shapes; the masks are boolean, of the same shapes. Ties at the threshold are all in the
    mask, so it may hold more than k; where γ = 0 it holds everything. The k-th value is selected, not sorted for.

    >>> import torch
    >>> salience_mask([torch.tensor([3.0, -1.0]), torch.tensor([-2.0, 0.5])], 0.5)
    [tensor([ True, False]), tensor([ True, False])]

    Source: arXiv 2310.12508, equation 3.
    """
    import torch

    # On the CPU, where the k-th value of tens of millions takes a moment on any machine.
    magnitudes = torch.cat([gradient.abs().flatten().cpu() for gradient in gradients])
    keep = math.ceil(share * len(magnitudes) - 1e-9)
    threshold = float(magnitudes.kthvalue(len(magnitudes) - keep + 1).values)
    return [gradient.abs() >= threshold for gradient in gradients]


def holding(
    parameters: Sequence[nn.Parameter], mask: Sequence[Tensor]
) -> tuple[Callable[[nn.Module], None], Callable[[nn.Module], None]]:
    """Return the two hooks of the training loop that keep every weight outside the mask as it is now, bit for bit.

    Before a step the gradients outside are set to zero, so that they neither count in clipping nor enter the momentum;
    after it the weights outside are put back, against weight decay.
    """
    import torch

    original = [parameter.detach().clone() for parameter in parameters]

    def before_step(model: nn.Module) -> None:
        for parameter, inside in zip(parameters, mask, strict=True):
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~inside, 0.0)

    @torch.no_grad()
    def after_step(model: nn.Module) -> None:
        for parameter, inside, value in zip(parameters, mask, original, strict=True):
            parameter.copy_(torch.where(inside, parameter, value))

    return before_step, after_step
