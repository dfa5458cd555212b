"""Batches of forget rows, each beside one of retain rows, and the losses that are made of the two."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from negmerge.seeding import derive_seed
from negmerge.unlearning.context import Context, Outcome, TrainingData
from negmerge.unlearning.fitting import AdamSettings, Fitting, batches_of, fit_base
from negmerge.unlearning.method import Passes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    # Of the model, a batch of forget rows and a generator of random numbers, which hang on the epoch and the step.
    ForgetLoss = Callable[[nn.Module, Any, torch.Generator], Tensor]
    RetainLoss = Callable[[nn.Module, Any], Tensor]


def paired_batches(data: TrainingData, settings: AdamSettings) -> tuple[Callable[[int], Iterator[Any]], int]:
    """Return the batches (forget, retain, generator) of an epoch, and how many there are.

    An epoch passes over the forget rows once; the retain batches are the first of as many seeded epochs of theirs as it
    takes, others in every epoch.
    """
    import torch

    forget = batches_of(data, data.forget, settings, "forget")
    retain = batches_of(data, data.retain, settings, "retain")
    rounds = -(-forget.steps // retain.steps)

    def batches(epoch: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(derive_seed(data.seed, "pairs", epoch))
        kept = itertools.chain.from_iterable(retain(epoch * rounds + i) for i in range(rounds))
        return ((gone, stays, generator) for gone, stays in zip(forget(epoch), kept, strict=False))

    return batches, forget.steps


def paired_passes(settings: AdamSettings, rows: Mapping[str, int], *, of_forget: int = 1, frozen: str = "") -> Passes:
    """Return the rows that a training on pairs passes through the model.

    In every epoch the forget rows `of_forget` times, and the retain rows of as many batches, none with λ = 0.
    `frozen` says which of them, "forget" or "both", pass through a frozen model as well.

    >>> paired_passes(AdamSettings(epochs=2, batch_size=4), {"forget": 10, "retain": 100}, frozen="forget")
    Passes(trained=44, evaluated=20, shared=0)
    """
    gone, stays, size = rows["forget"], rows["retain"], settings.batch_size
    whole, rest = divmod(-(-gone // size), -(-stays // size))
    kept = whole * stays + min(rest * size, stays) if settings.retain_weight else 0
    own = of_forget * gone
    beside = {"": 0, "forget": own, "both": own + kept}[frozen]
    return Passes(settings.epochs * (own + kept), settings.epochs * beside)


def fit_paired(
    context: Context,
    settings: AdamSettings,
    make: Callable[[TrainingData], tuple[ForgetLoss, RetainLoss | None, nn.Module | None]],
) -> Outcome:
    """Minimise forget loss + λ · retain loss from the base, by the one loop, and write the weights.

    `make(data)` returns the two losses, the second None for the task's own, and the model to train, None for the base.
    With λ = 0 no retain row is passed through the model. Raises NegmergeError where training diverges.
    """

    def prepare() -> Fitting:
        data = context.data
        batches, steps = paired_batches(data, settings)
        forget_loss, retain_loss, model = make(data)
        keep = retain_loss or data.task.loss

        def loss(module: nn.Module, pair: Any) -> Tensor:
            gone, stays, generator = pair
            found = forget_loss(module, gone, generator)
            return found + settings.retain_weight * keep(module, stays) if settings.retain_weight else found

        return Fitting(batches, steps, loss=loss, model=model)

    return fit_base(context, settings, prepare)
