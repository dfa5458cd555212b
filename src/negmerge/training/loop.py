"""The training loop: any module, any batches, any loss."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.errors import InputError, NegmergeError
from negmerge.models._statistics import statistics_layers
from negmerge.training.settings import TrainSettings


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch: its number from 1, its mean loss, and the state to go on from."""

    number: int
    loss: float
    optimizer: dict[str, Any]


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[nn.Module, Any], Tensor],
    settings: TrainSettings,
    *,
    steps_per_epoch: int,
    start: Epoch | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    before_step: Callable[[nn.Module], None] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> float:
    """Train `model` in place and return the mean loss of its last epoch.

    `batches(epoch)` yields the batches of epoch 0, 1, …, at most `steps_per_epoch` of them are used;
    `loss(model, batch)` returns a scalar. All parameters that require a gradient are trained. With `start`, training
    goes on after that epoch (the model's weights must be those of then). With `freeze_statistics` batch-norm layers
    use and keep their running statistics; their weights are trained all the same. `before_step(model)` is called with
    the gradients of a step, before they are clipped; `after_step(model)` with the weights that the step made.

    Raises InputError for `freeze_statistics` on a model without running statistics, and NegmergeError where the
    loss of a step is not finite, naming the epoch.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, settings)
    done = 0
    mean = math.nan
    if start is not None:
        optimizer.load_state_dict(start.optimizer)
        done, mean = start.number, start.loss
    steps = settings.epochs * steps_per_epoch
    model.train()
    if settings.freeze_statistics:
        _freeze_statistics(model)
    for epoch in range(done, settings.epochs):
        total = torch.zeros((), dtype=torch.float64)
        count = 0
        for i, batch in zip(range(steps_per_epoch), batches(epoch), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate(epoch * steps_per_epoch + i, steps)
            optimizer.zero_grad(set_to_none=True)
            value = loss(model, batch)
            value.backward()
            if before_step:
                before_step(model)
            if settings.clip is not None:
                nn.utils.clip_grad_norm_(parameters, settings.clip)
            optimizer.step()
            if after_step:
                after_step(model)
            total += value.detach().double().cpu()
            count += 1
        mean = float(total) / max(1, count)
        if not math.isfinite(mean):
            raise NegmergeError(
                f"training diverged: the loss became {mean} in epoch {epoch + 1} of {settings.epochs} at "
                f"lr {settings.lr:g}; lower the learning rate or set clip"
            )
        if on_epoch:
            on_epoch(Epoch(epoch + 1, mean, optimizer.state_dict()))
    model.eval()
    return mean


def _freeze_statistics(model: nn.Module) -> None:
    layers = statistics_layers(model)
    if not layers:
        raise InputError("freeze_statistics: the model has no running statistics; leave it out")
    for layer in layers:
        layer.eval()


def _optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
