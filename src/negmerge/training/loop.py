"""The training loop: any module, any batches, any loss."""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.errors import DivergedError, InputError
from negmerge.training.running_statistics import statistics_layers
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
    `loss(model, batch)` returns a scalar. With `accumulate` the mean gradient of so many batches makes a step. All
    parameters that require a gradient are trained. With `start`, training goes on after that epoch (the model's weights
    must be those of then). With `freeze_statistics` batch-norm layers use and keep their running statistics; their
    weights are trained all the same. `before_step(model)` is called with the gradients of a step, before they are
    clipped; `after_step(model)` with the weights that the step made. torch's global random numbers, from which dropout
    draws, are the same after it as before.

    Raises InputError for `freeze_statistics` on a model without running statistics, and DivergedError where the
    loss of a step is not finite, naming the epoch.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, settings)
    done, mean = 0, math.nan
    if start is not None:
        optimizer.load_state_dict(start.optimizer)
        done, mean = start.number, start.loss
    steps, passes = settings.count_steps(steps_per_epoch), settings.accumulate
    in_epoch = -(-steps_per_epoch // passes)
    epochs = -(-steps // in_epoch)

    def step(number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate(number, steps)
        if before_step:
            before_step(model)
        if settings.clip is not None:
            nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimizer.step()
        if after_step:
            after_step(model)

    model.train()
    if settings.freeze_statistics:
        _freeze_statistics(model)
    with _own_random_numbers(parameters[0].device):
        for epoch in range(done, epochs):
            first = epoch * in_epoch
            count = min(steps_per_epoch, (steps - first) * passes)
            chosen = zip(range(count), batches(epoch), strict=False)
            mean = _pass_through(model, chosen, loss, step, first, count, passes)
            if not math.isfinite(mean):
                raise DivergedError(
                    f"training diverged: the loss became {mean} in epoch {epoch + 1} of {epochs} at "
                    f"lr {settings.lr:g}; lower the learning rate or set clip"
                )
            if on_epoch:
                on_epoch(Epoch(epoch + 1, mean, optimizer.state_dict()))
    model.eval()
    return mean


def _pass_through(
    model: nn.Module,
    batches: Iterable[tuple[int, Any]],
    loss: Callable[[nn.Module, Any], Tensor],
    step: Callable[[int], None],
    first: int,
    count: int,
    passes: int,
) -> float:
    """Pass `count` numbered batches through the model, with a step, from number `first`, after each `passes` of them.

    Returns the mean of their losses.
    """
    losses = []  # read at the end: reading one makes an accelerator wait for its step
    for i, batch in batches:
        if i % passes == 0:
            model.zero_grad(set_to_none=True)
        share = min(passes, count - i + i % passes)  # the last step of an epoch may have fewer
        value = loss(model, batch)
        (value / share).backward()
        if i % passes == share - 1:
            step(first + i // passes)
        losses.append(value.detach())
    return sum(torch.stack(losses).tolist()) / len(losses) if losses else 0.0


def _own_random_numbers(device: torch.device) -> AbstractContextManager[Any]:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


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
