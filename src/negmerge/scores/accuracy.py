"""Accuracy in percent."""

from torch import Tensor

from negmerge.errors import InputError
from negmerge.scores.score import Need, Score


def accuracy(correct: Tensor) -> float:
    """Return the share of rows that are right, in percent: 100 · mean(correct).

    correct: bool [n], or shares, whose mean it then is. Raises InputError for no rows.

    >>> import torch
    >>> accuracy(torch.tensor([True, False]))
    50.0
    """
    if not len(correct):
        raise InputError("accuracy of no rows is not defined; give at least one")
    return 100.0 * float(correct.double().sum()) / len(correct)


def percent_by_group(values: Tensor, group: Tensor, groups: int) -> list[float | None]:
    """Return the mean in percent among the rows of each group, None for a group without rows: of bools, accuracy.

    values: bool or shares [n]; group: int64 [n], from 0 to `groups` − 1.

    >>> import torch
    >>> percent_by_group(torch.tensor([True, False]), torch.tensor([0, 0]), 2)
    [50.0, None]
    """
    rows = [group == number for number in range(groups)]
    return [100.0 * float(values[row].double().sum()) / int(row.sum()) if row.any() else None for row in rows]


def accuracy_of(
    part: str,
    title: str,
    about: str,
    *,
    classes: int,
    forgotten: bool = False,
    in_gap: bool = False,
    shown: bool = True,
    in_curve: bool = False,
) -> Score:
    """Return the score that is the accuracy on a part; `forgotten` says whether it holds rows to be forgotten."""
    return Score(
        name=part,
        title=title,
        about=about,
        needs=frozenset({Need("model", part, "correct")}),
        compute=lambda observed, draw: accuracy(observed["model"][part]["correct"]),
        aim="lower" if forgotten else "higher",
        chance=100.0 / classes,
        in_gap=in_gap,
        shown=shown,
        in_curve=in_curve,
    )
