"""The mean loss of rows."""

import torch
from torch import Tensor
from torch.nn import functional

from negmerge.errors import DivergedError, InputError
from negmerge.scores.score import Need, Score


def mean_loss(loss: Tensor) -> float:
    """Return the mean of the losses of rows, float64 [n]; NaN for no rows.

    They are added up as torch adds up the rows of a cross-entropy, so that the mean of a column has the bits of the
    loss of all its rows at once.

    >>> mean_loss(torch.tensor([0.5, 1.5], dtype=torch.float64))
    1.0
    """
    return float(functional.nll_loss(-loss[:, None], torch.zeros(len(loss), dtype=torch.int64)))


def check_losses(who: str, forget: Tensor, unseen: Tensor) -> None:
    """Raise InputError where a comparison of losses, [n] and [m], has none on a side, DivergedError for NaN."""
    if not (len(forget) and len(unseen)):
        raise InputError(f"{who} needs forget rows and unseen rows; one of them is empty")
    if forget.isnan().any() or unseen.isnan().any():
        raise DivergedError("the losses hold NaN: the model has diverged")


def mean_loss_of(part: str, title: str, about: str, *, shown: bool = False, in_curve: bool = False) -> Score:
    """Return the score `PART_loss`, the mean loss on a part, in nats for a cross-entropy."""
    return Score(
        name=f"{part}_loss",
        title=title,
        about=about,
        needs=frozenset({Need("model", part, "loss")}),
        compute=lambda observed, draw: mean_loss(observed["model"][part]["loss"]),
        aim="lower",
        unit="nat",
        high=None,
        shown=shown,
        in_curve=in_curve,
    )
