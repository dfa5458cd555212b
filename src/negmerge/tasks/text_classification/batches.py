"""Batches of texts: padded on the right, those of a batch of like lengths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from negmerge.tasks.rows.epochs import BatchSettings, batches_of_like_lengths, begin_epoch, steps_in
from negmerge.tasks.text_classification.store import TokenTable


class Batch(NamedTuple):
    """Token numbers int64 [b, L], padded; mask int64 [b, L], 1 at tokens, 0 at padding; labels int64 [b]."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(part.to(device) for part in self))


def pad(rows: Sequence[np.ndarray], labels: Tensor, padding: int) -> Batch:
    """Return rows of token numbers as one batch, each with so much padding behind it that all are as long.

    >>> pad([np.array([1, 7]), np.array([1])], torch.tensor([0, 1]), 9).ids.tolist()
    [[1, 7], [1, 9]]
    """
    longest = max(map(len, rows))
    ids, mask = np.full((len(rows), longest), padding, dtype=np.int64), np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask), labels)


@dataclass(frozen=True)
class TextBatches:
    """Seeded batches of rows of a table; every row is in an epoch once.

    Epoch e is drawn from (seed, e) alone, as `batches_of_like_lengths` says; torch's global random numbers, from which
    dropout draws, are seeded from the same.
    """

    table: TokenTable
    rows: Tensor
    settings: BatchSettings
    padding: int
    seed: int
    device: torch.device | str

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_in(len(self.rows), self.settings.batch_size)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        lengths, size = torch.from_numpy(self.table.lengths), self.settings.batch_size
        for chosen in batches_of_like_lengths(self.rows, lengths, size, begin_epoch(self.seed, epoch)):
            yield pad(*self.table.take(chosen), self.padding).to(self.device)
