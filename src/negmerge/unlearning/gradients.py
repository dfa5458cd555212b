"""Gradients at fixed weights over many rows: the model in evaluation mode, rows as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from negmerge.tasks.task import RowLosses, need
from negmerge.unlearning.context import TrainingData

if TYPE_CHECKING:
    from torch import Tensor, nn

    LossesOf = Callable[[Tensor], Iterable[Tensor]]  # rows → their losses, [b] at a time

ROWS = 250  # rows in one pass; sums are taken in this order, so it is part of the result's last bits


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training changes, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def row_losses(data: TrainingData, model: nn.Module, rows: Tensor) -> Iterator[Tensor]:
    """Yield the loss of each row, [b] at a time, with a graph to differentiate; one batch lives at a time."""
    task = need(data.task, RowLosses, "a method that differentiates single rows")
    model.eval()
    for part in rows.split(ROWS):
        yield task.losses(model, data.task.batch(part, data.device))


def mean_gradient(losses: LossesOf, parameters: Sequence[nn.Parameter], rows: Tensor) -> list[Tensor]:
    """Return the gradient of the mean of `losses(rows)`, a tensor for each parameter."""
    import torch

    total = [torch.zeros_like(parameter) for parameter in parameters]
    for part in losses(rows):
        gradients = torch.autograd.grad(part.sum(), parameters)
        for sum_, gradient in zip(total, gradients, strict=True):
            sum_ += gradient
    return [sum_ / len(rows) for sum_ in total]


def fisher_diagonal(data: TrainingData, model: nn.Module, rows: Tensor) -> list[Tensor]:
    """Return the diagonal of the empirical Fisher information: the mean over rows of their squared gradients.

    A tensor for each trained parameter, the rows one by one.
    """
    import torch

    task = need(data.task, RowLosses, "a method that differentiates single rows")
    model.eval()
    parameters = trained_parameters(model)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for row in rows.split(1):
        loss = task.losses(model, data.task.batch(row, data.device)).mean()
        for sum_, gradient in zip(total, torch.autograd.grad(loss, parameters), strict=True):
            sum_.addcmul_(gradient, gradient)
    return [sum_ / len(rows) for sum_ in total]
