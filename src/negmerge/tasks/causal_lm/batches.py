"""Batches of token sequences: padded on the right, those of a batch of like lengths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from negmerge.tasks.causal_lm.store import Sequences
from negmerge.tasks.causal_lm.windows import Window
from negmerge.tasks.rows.epochs import BatchSettings, batches_of_like_lengths, begin_epoch, steps_in

NOTHING = -100  # the label where nothing is to be predicted


class Batch(NamedTuple):
    """Tokens int64 [b, L], padded; mask int64 [b, L], 1 at tokens, 0 at padding; labels int64 [b, L]: a token where it
    counts, else −100; sequences int64 [b]: the sequence of each."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    sequences: Tensor

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch on a device."""
        return Batch(*(part.to(device) for part in self))


@dataclass(frozen=True, eq=False)
class Reader:
    """Cuts sequences into windows and puts them into batches."""

    sequences: Sequences
    context: int
    overlap: int
    padding: int

    def windows(self, sequences: Iterable[int]) -> list[tuple[int, Window]]:
        """Return the windows of these sequences, those of one behind one another."""
        return [(s, window) for s in sequences for window in self.sequences.windows(s, self.context, self.overlap)]

    def of_rows(self, rows: Tensor) -> list[tuple[int, Window]]:
        """Return the windows of the own answers of rows."""
        return self.windows(self.sequences.own[rows.numpy()].tolist())

    def batch(self, windows: Sequence[tuple[int, Window]]) -> Batch:
        """Return windows as one batch, padded to the longest."""
        parts = [self.sequences.ids(s)[w.begin : w.end] for s, w in windows]
        return pad(parts, [w.counted - w.begin for _, w in windows], [s for s, _ in windows], self.padding)


def pad(parts: Sequence[Tensor], counted: Sequence[int], sequences: Sequence[int], padding: int) -> Batch:
    """Return token sequences as one batch; of each those from `counted` on are labels.

    >>> pad([torch.tensor([5, 6]), torch.tensor([7])], [1, 1], [0, 1], 9).labels.tolist()
    [[-100, 6], [-100, -100]]
    """
    longest = max(map(len, parts))
    ids = torch.full((len(parts), longest), padding, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, NOTHING)
    for i, (part, first) in enumerate(zip(parts, counted, strict=True)):
        ids[i, : len(part)], mask[i, : len(part)] = part, 1
        labels[i, first : len(part)] = part[first:]
    return Batch(ids, mask, labels, torch.tensor(sequences, dtype=torch.int64))


@dataclass(frozen=True)
class SequenceBatches:
    """Seeded batches of the windows of some rows; every window is in an epoch once.

    Epoch e is drawn from (seed, e) alone, as `batches_of_like_lengths` says; torch's global random numbers, from which
    dropout draws, are seeded from the same.
    """

    reader: Reader
    rows: Tensor
    settings: BatchSettings
    seed: int
    device: torch.device | str

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_in(len(self.windows), self.settings.batch_size)

    @cached_property
    def windows(self) -> list[tuple[int, Window]]:
        """The windows of the rows."""
        return self.reader.of_rows(self.rows)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        lengths = torch.tensor([w.end - w.begin for _, w in self.windows])
        every, size = torch.arange(len(lengths)), self.settings.batch_size
        for chosen in batches_of_like_lengths(every, lengths, size, begin_epoch(self.seed, epoch)):
            yield self.reader.batch([self.windows[i] for i in chosen.tolist()]).to(self.device)
