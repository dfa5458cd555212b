"""Batches of rows of different lengths, of which little is padding."""

from torch import Tensor


def cut_by_length(lengths: Tensor, tokens: int) -> list[int]:
    """Return how many rows each batch has, of rows that are sorted by length: as many as `tokens` have room for.

    >>> import torch
    >>> cut_by_length(torch.tensor([1, 1, 2, 4]), 4)
    [2, 1, 1]
    """
    counts: list[int] = []
    count = 0
    for length in lengths.tolist():
        if count and (count + 1) * length > tokens:
            counts.append(count)
            count = 0
        count += 1
    return [*counts, count] if count else counts
