"""The margin of the right answer, from logits: log p_y − log(1 − p_y), which does not saturate as p_y does."""

from pathlib import Path

import torch
from torch import Tensor, nn

from negmerge.evidence.subject import Subject


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return z_y − log Σ exp(z of the others), float64 [n], of logits [n, labels] and labels int64 [n].

    >>> margins_of(torch.tensor([[2.0, 0.5]]), torch.tensor([0])).item()
    1.5
    """
    logits, place = logits.double(), labels[:, None]
    others = logits.scatter(1, place, -torch.inf)
    return logits.gather(1, place)[:, 0] - others.logsumexp(1)


def observe_margins(subject: Subject, model: nn.Module | Path, rows: Tensor) -> Tensor:
    """Return the margins of a model, or of one in a file, on some rows, float64 [n]."""
    opened = subject.task.open(model, subject.device) if isinstance(model, Path) else model
    return torch.cat([margins_of(logits, labels) for logits, labels in subject.outputs(opened, rows)])
