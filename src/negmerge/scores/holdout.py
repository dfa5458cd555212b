"""How far the behaviour on some rows is from that on others: accuracy, and the distribution of the loss."""

import torch
from torch import Tensor

from negmerge.errors import DivergedError, InputError
from negmerge.scores.accuracy import accuracy
from negmerge.scores.score import Columns, Need, Role, Score


def holdout_distance(forget: Columns, unseen: Columns, known: str = "correct") -> float:
    """Return how far the forget rows are from unseen rows, in percentage points from 0 to 100.

    (|FA − UA| + 100 · D) / 2, with FA and UA the two accuracies in percent (the means of `known`, where that is a
    column of shares) and D the Kolmogorov-Smirnov distance of the two samples of losses. The two parts may come from
    two models: a candidate's forget rows against the unseen rows of the original. To Retrain, made like the original,
    the forget rows are unseen rows too, so its distance is about 0.

    Columns `known`, bool or shares, and `loss`, float64, of either. Raises InputError for no rows, and DivergedError
    for a loss that is NaN or Inf.

    >>> sure = {"correct": torch.tensor([True] * 4), "loss": torch.zeros(4)}
    >>> half = {"correct": torch.tensor([True, False] * 2), "loss": torch.tensor([0.0, 99.0] * 2)}
    >>> holdout_distance(sure, sure), holdout_distance(sure, half)
    (0.0, 50.0)
    """
    for name, columns in (("forget", forget), ("unseen", unseen)):
        if not columns["loss"].isfinite().all():
            raise DivergedError(f"the losses of the {name} rows hold NaN or Inf: the model has diverged")
    apart = abs(accuracy(forget[known]) - accuracy(unseen[known]))
    return (apart + 100.0 * kolmogorov_smirnov(forget["loss"], unseen["loss"])) / 2.0


def kolmogorov_smirnov(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of the empirical distribution functions of two samples [n], [m], from 0 to 1.

    sup over x of |#{a ≤ x} / n − #{b ≤ x} / m|; equal values step together. Raises InputError for an empty sample.

    >>> kolmogorov_smirnov(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]))
    0.5
    """
    if not (len(a) and len(b)):
        raise InputError("the distance of two samples needs at least one value of each")
    places = torch.cat([a, b])
    shares = [torch.searchsorted(s.sort().values, places, right=True).double() / len(s) for s in (a, b)]
    return float((shares[0] - shares[1]).abs().max())


SAMPLES: tuple[tuple[Role, str], ...] = (("model", "forget"), ("base", "validation"))


def holdout_score(known: str = "correct") -> Score:
    """Return the score that is `holdout_distance` of the model's forget rows from the base's validation rows."""
    return Score(
        name="holdout",
        title="distance to unseen rows",
        about="Distance of the forget rows from unseen rows",
        needs=frozenset(Need(role, part, column) for role, part in SAMPLES for column in (known, "loss")),
        compute=lambda observed, draw: holdout_distance(
            observed["model"]["forget"], observed["base"]["validation"], known
        ),
        aim="lower",
    )


HOLDOUT = holdout_score()
