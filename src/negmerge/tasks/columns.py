"""The columns of classification: what is kept of the answers to a batch, one number for each row."""

import math
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


def _entropy(logits: Tensor, labels: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p.clamp_min(LEAST_LOG)).sum(1)


def _modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    log_p = logits.double().log_softmax(1)
    log_rest = torch.log(-torch.expm1(log_p)).clamp_min(LEAST_LOG)
    own = torch.zeros_like(log_p, dtype=torch.bool).scatter_(1, labels[:, None], value=True)
    wrong, right = log_p.exp() * log_rest, -torch.expm1(log_p) * log_p.clamp_min(LEAST_LOG)
    return -torch.where(own, right, wrong).sum(1)


def _group(logits: Tensor, labels: Tensor) -> Tensor:
    return labels


def _answer(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(1)


LEAST_LOG = -30.0 * math.log(10.0)  # the logarithm of a probability of 0 is that of 1e-30


COLUMNS: dict[str, tuple[torch.dtype, Callable[[Tensor, Tensor], Tensor]]] = {
    "correct": (torch.bool, _correct),
    "loss": (torch.float64, _loss),
    "confidence": (torch.float64, _confidence),
    "entropy": (torch.float64, _entropy),
    "modified_entropy": (torch.float64, _modified_entropy),
    "group": (torch.int64, _group),
    "answer": (torch.int64, _answer),
}


def columns_of(logits: Tensor, labels: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """Return columns of answers: logits [b, classes], labels int64 [b].

    correct: whether the largest logit is the label's (bool; ties go to the first class, a row with NaN is wrong);
    loss: −log softmax(logits)[label] (float64); confidence: softmax(logits)[label] (float64); group: the label;
    entropy: −Σ p_c log p_c; modified_entropy: −(1 − p_y) log p_y − Σ_{c ≠ y} p_c log(1 − p_c), p = softmax(logits) and
    y the label, no logarithm below that of 1e-30 (float64; Song and Mittal, 2021, arXiv 2003.10595);
    answer: the class of the largest logit (int64).

    >>> columns_of(torch.tensor([[0.0, 0.0]]), torch.tensor([1]), ["correct", "confidence"])
    {'correct': tensor([False]), 'confidence': tensor([0.5000], dtype=torch.float64)}
    """
    return {name: COLUMNS[name][1](logits, labels) for name in names}


def no_rows(name: str) -> Tensor:
    """Return the column of no rows."""
    return torch.empty(0, dtype=COLUMNS[name][0])
