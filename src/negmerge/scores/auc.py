"""How well a threshold on a column tells forget rows from unseen ones."""

import torch
from torch import Tensor

from negmerge.scores.loss import check_losses
from negmerge.scores.score import Need, Score


def loss_auc(forget: Tensor, unseen: Tensor) -> float:
    """Return the chance, in percent, that an unseen row has a larger loss than a forget row; ties count as half.

    100 · (#{f < u} + ½ #{f = u}) / (n·m) over all pairs of losses, float64 [n] and [m]. Far below 50 is as telling as
    far above: rows that are known worse than unseen ones were over-forgotten. Raises InputError for no rows, and
    DivergedError for NaN.

    >>> loss_auc(torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.3]))
    62.5
    """
    check_losses("loss-auc", forget, unseen)
    ordered = unseen.sort().values
    above = len(unseen) - torch.searchsorted(ordered, forget, right=True)
    equal = torch.searchsorted(ordered, forget, right=True) - torch.searchsorted(ordered, forget)
    return 50.0 * int(2 * above.sum() + equal.sum()) / (len(forget) * len(unseen))


def auc_score(column: str, name: str, title: str, about: str, attack: str) -> Score:
    """Return the score that is `loss_auc` of a column, larger for what was not seen, on forget and test rows."""
    return Score(
        name=name,
        title=title,
        about=about,
        needs=frozenset({Need("model", "forget", column), Need("model", "test", column)}),
        compute=lambda observed, draw: loss_auc(*(observed["model"][part][column] for part in ("forget", "test"))),
        aim="reference",
        chance=50.0,
        attack=attack,
    )
