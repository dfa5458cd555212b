"""Membership by the loss where an attacker must be nearly sure: true positives at 1 % false positives."""

from torch import Tensor

from negmerge.scores.loss import check_losses
from negmerge.scores.score import Need, Score

SUMMARY = "membership by the loss, at 1 % false positives: the share of forget rows found; 1 % is chance"
FALSE_POSITIVES = 0.01


def loss_tpr(forget: Tensor, unseen: Tensor, false_positives: float = FALSE_POSITIVES) -> float:
    """Return the share of forget rows, in percent, that a threshold on the loss finds at a rate of false positives.

    The threshold is the largest at which at most ⌊false_positives · m⌋ of the m unseen rows lie strictly below it, so a
    tie with it is not called a member: with k = ⌊false_positives · m⌋ it is the loss of the unseen row of rank k + 1.
    float64 [n] and [m]. Below 1 / false_positives unseen rows k is 0. Raises InputError for no rows, and DivergedError
    for NaN.

    >>> import torch
    >>> loss_tpr(torch.tensor([0.1, 0.5]), torch.linspace(0.2, 1.0, 100, dtype=torch.float64))
    50.0

    Source: Carlini et al., Membership Inference Attacks From First Principles, 2022 (arXiv 2112.03570).
    """
    check_losses("loss-tpr", forget, unseen)
    threshold = unseen.sort().values[int(false_positives * len(unseen) + 1e-9)]
    return 100.0 * float((forget < threshold).double().mean())


SCORE = Score(
    name="membership_loss_tpr",
    title="TPR at 1 % FPR",
    about="Found at 1 % false alarms",
    needs=frozenset({Need("model", "forget", "loss"), Need("model", "test", "loss")}),
    compute=lambda observed, draw: loss_tpr(observed["model"]["forget"]["loss"], observed["model"]["test"]["loss"]),
    aim="reference",
    chance=1.0,
    attack="loss-tpr",
)
