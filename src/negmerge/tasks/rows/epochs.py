"""What an epoch is drawn from: the seed and its number alone, so that training can go on from any."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from negmerge.seeding import derive_seed

WINDOW = 16  # batches whose rows are sorted by length together


class BatchSettings(Protocol):
    """The training settings that batches of sequences heed."""

    @property
    def batch_size(self) -> int:
        """Rows, or windows of them, in a batch."""
        ...


def begin_epoch(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of an epoch's order, and seed torch's global random numbers, from which dropout draws."""
    torch.manual_seed(derive_seed(seed, "dropout", epoch))
    return torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))


def steps_in(rows: int, size: int) -> int:
    """Return how many batches of a size an epoch of so many rows has, the last perhaps shorter; one at least.

    >>> steps_in(5, 2), steps_in(0, 2)
    (3, 1)
    """
    return max(1, -(-rows // size))


def batches_of_like_lengths(rows: Tensor, lengths: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield every row number once, in shuffled batches whose rows are of like lengths.

    A permutation, in which the rows of each 16 batches are sorted by length and then cut, so that little of a batch is
    padding; then the order of the batches. `rows` int64 [m] are numbers in a table, `lengths` [n] those of its rows.
    """
    order = rows[torch.randperm(len(rows), generator=generator)]
    windows = (window[lengths[window].argsort(stable=True)] for window in order.split(size * WINDOW))
    batches = [batch for window in windows for batch in window.split(size)]
    for number in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[number]
