"""Accuracy in percent."""

from torch import Tensor

from negmerge.errors import InputError


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of rows whose largest logit is the label's, in percent: 100 · mean(argmax(logits) = label).

    logits [n, classes], labels int64 [n]. Ties go to the first class; a row with NaN is classified wrong. Raises
    InputError for no rows, or unequally many.

    >>> import torch
    >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    50.0
    """
    _check(logits, labels)
    if not len(labels):
        raise InputError("accuracy of no rows is not defined; give at least one")
    return 100.0 * int(_is_right(logits, labels).sum()) / len(labels)


def per_class_accuracy(logits: Tensor, labels: Tensor, classes: int) -> list[float | None]:
    """Return the accuracy in percent among the rows of each class, None for a class without rows.

    logits [n, classes], labels int64 [n]; ties and NaN as in `accuracy`. Raises InputError for unequally many rows.

    >>> import torch
    >>> per_class_accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]), 2)
    [50.0, None]
    """
    _check(logits, labels)
    right = _is_right(logits, labels)
    rows = [labels == label for label in range(classes)]
    return [100.0 * int(right[row].sum()) / int(row.sum()) if row.any() else None for row in rows]


def _is_right(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise InputError(f"logits [n, classes] and labels [n] do not fit: {list(logits.shape)}, {list(labels.shape)}")
