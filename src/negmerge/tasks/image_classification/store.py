"""Decoded images on disk: decoded once in a run, then memory-mapped by every process that needs them."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.rows.loading import facts_of
from negmerge.tasks.rows.store import ArrayStore, MemoryTables


@dataclass(frozen=True)
class ImageTable:
    """One table of uint8 images [n, C, H, W] with int64 labels [n], memory-mapped; rows are copied when taken."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels of these rows, in their order."""
        index = rows.numpy()
        return torch.from_numpy(self.images[index]), torch.from_numpy(self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)

    def followed_by(self, other: "ImageTable") -> "JoinedTables":
        """Return the table with the rows of another one behind its own; nothing is copied."""
        return JoinedTables(self, other)


@dataclass(frozen=True)
class JoinedTables:
    """Two tables as one: the rows of the second are counted on from the end of the first."""

    first: ImageTable
    second: ImageTable

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images and labels of these rows, in their order."""
        in_first = rows < len(self.first)
        if in_first.all():
            return self.first.take(rows)
        parts = self.first.take(rows[in_first]), self.second.take(rows[~in_first] - len(self.first))
        place = torch.cat([in_first.nonzero()[:, 0], (~in_first).nonzero()[:, 0]]).argsort()
        images, labels = (torch.cat(pair) for pair in zip(*parts, strict=True))
        return (images[place], labels[place]) if in_first.any() else (images, labels)


def tables_of(source: Source, **further: Any) -> MemoryTables[ImageTable]:
    """Return the tables of a source that is in memory, with the interface of a store; `further` are more facts."""
    train, test = (ImageTable(t.images.numpy(), t.labels.numpy()) for t in (source.train, source.test))
    facts = facts_of(source, train.images.nbytes + test.images.nbytes)
    return MemoryTables(train, test, {**facts, "shape": list(train.images.shape[1:]), **further})


@dataclass(frozen=True)
class Store(ArrayStore[ImageTable]):
    """The folder of the decoded `train` and `test` tables, with their class names."""

    TABLE: ClassVar[type[Any]] = ImageTable
    MAPPED: ClassVar[tuple[str, ...]] = ("images",)
