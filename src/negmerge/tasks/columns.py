"""The columns of image classification: what is kept of the answers to a batch, one number for each row."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.double(), labels, reduction="none")


def _confidence(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.double().softmax(1).gather(1, labels[:, None])[:, 0]


def _group(logits: Tensor, labels: Tensor) -> Tensor:
    return labels


COLUMNS: dict[str, tuple[torch.dtype, Callable[[Tensor, Tensor], Tensor]]] = {
    "correct": (torch.bool, _correct),
    "loss": (torch.float64, _loss),
    "confidence": (torch.float64, _confidence),
    "group": (torch.int64, _group),
}


def columns_of(logits: Tensor, labels: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """Return columns of answers: logits [b, classes], labels int64 [b].

    correct: whether the largest logit is the label's (bool; ties go to the first class, a row with NaN is wrong);
    loss: −log softmax(logits)[label] (float64); confidence: softmax(logits)[label] (float64); group: the label.

    >>> columns_of(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), ["correct", "confidence"])
    {'correct': tensor([False]), 'confidence': tensor([0.5000], dtype=torch.float64)}
    """
    return {name: COLUMNS[name][1](logits, labels) for name in names}


def no_rows(name: str) -> Tensor:
    """Return the column of no rows."""
    return torch.empty(0, dtype=COLUMNS[name][0])
