"""The most memorised rows: what a model knows only where it has seen them, told by models trained on halves."""

import torch
from torch import Tensor

from negmerge.errors import InputError


def deal_halves(count: int, models: int, generator: torch.Generator) -> Tensor:
    """Return which rows each model is trained on, bool [models, count].

    Models come in pairs: a random half of the rows, and the other half. So every row is seen by one model of a pair.

    >>> deal_halves(5, 4, torch.Generator().manual_seed(0)).sum(0).tolist()
    [2, 2, 2, 2, 2]
    """
    inside = torch.zeros(models, count, dtype=torch.bool)
    for pair in range(0, models, 2):
        half = torch.randperm(count, generator=generator)[: count // 2]
        inside[pair, half] = True
        inside[pair + 1] = ~inside[pair]
    return inside


def memorisation(known: Tensor, inside: Tensor) -> Tensor:
    """Return how much better each row is known by models that saw it, float64 [n]: in −1 … 1.

    The mean of `known` (confidence in the right answer, [models, n]) over the models that were trained on the row
    (`inside`, bool [models, n]), less the mean over the others. Feldman and Zhang take the share of models that are
    right; confidence says more where models are few.

    Source: Feldman and Zhang, What Neural Networks Memorize and Why, 2020 (arXiv 2008.03703).

    >>> memorisation(torch.tensor([[0.9, 1.0], [0.3, 1.0]]), torch.tensor([[True, False], [False, True]])).tolist()
    [0.5999999642372131, 0.0]
    """
    known, seen = known.double(), inside.double()
    return (known * seen).sum(0) / seen.sum(0) - (known * (1 - seen)).sum(0) / (1 - seen).sum(0)


def hardest_of(rows: Tensor, memorised: Tensor, n: int) -> Tensor:
    """Return the n rows that are most memorised, int64, sorted by number; of equals those with the smaller number.

    Raises InputError where fewer than half of the rows would be left.

    >>> hardest_of(torch.tensor([3, 5, 8, 9]), torch.tensor([0.1, 0.7, 0.7, 0.2]), 2).tolist()
    [5, 8]
    """
    check_hardest(n, len(rows))
    return rows[memorised.argsort(descending=True, stable=True)[:n]].sort().values


def check_hardest(n: int, rows: int) -> None:
    """Raise InputError where n are more than half of the rows."""
    if n > rows // 2:
        raise InputError(f"data.forget.hardest: {n} of {rows} training rows are too many; {rows // 2} at most")
