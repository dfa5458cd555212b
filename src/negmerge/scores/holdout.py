"""How far the behaviour on some rows is from that on others: accuracy, and the distribution of the loss."""

import torch
from torch import Tensor
from torch.nn import functional

from negmerge.errors import DivergedError, InputError
from negmerge.scores.accuracy import accuracy


def holdout_distance(
    forget_logits: Tensor, forget_labels: Tensor, unseen_logits: Tensor, unseen_labels: Tensor
) -> float:
    """Return how far the forget rows are from unseen rows, in percentage points from 0 to 100.

    (|FA − UA| + 100 · D) / 2, with FA and UA the two accuracies in percent and D the Kolmogorov-Smirnov distance of
    the two samples of cross-entropy losses. The two parts may come from two models: a candidate's forget rows against
    the unseen rows of the original. To Retrain, made like the original, the forget rows are unseen rows too, so its
    distance is about 0.

    Logits [n, classes], labels int64 [n]; losses are computed in float64. Raises InputError for no rows, and
    DivergedError for logits with NaN or Inf.

    >>> sure, half = torch.tensor([[99.0, 0.0]] * 4), torch.tensor([[99.0, 0.0], [0.0, 99.0]] * 2)
    >>> label = torch.zeros(4, dtype=torch.int64)
    >>> holdout_distance(sure, label, sure, label), holdout_distance(sure, label, half, label)
    (0.0, 50.0)
    """
    for name, logits in (("forget", forget_logits), ("unseen", unseen_logits)):
        if not logits.isfinite().all():
            raise DivergedError(f"the logits of the {name} rows hold NaN or Inf: the model has diverged")
    apart = abs(accuracy(forget_logits, forget_labels) - accuracy(unseen_logits, unseen_labels))
    losses = (
        functional.cross_entropy(forget_logits.double(), forget_labels, reduction="none"),
        functional.cross_entropy(unseen_logits.double(), unseen_labels, reduction="none"),
    )
    return (apart + 100.0 * kolmogorov_smirnov(*losses)) / 2.0


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
