"""Decoded images on disk: decoded once in a run, then memory-mapped by every process that needs them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic
from negmerge.requests.split_files import fingerprint
from negmerge.tasks.image_classification.images import Source


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


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The rows of both tables, the test table behind the train table: their labels, class names and hash."""

    group_of: Tensor
    groups: tuple[str, ...]
    hash: str

    def __len__(self) -> int:
        return len(self.group_of)

    def fingerprint(self) -> str:
        """Return the hash of images, labels and class names of both tables."""
        return self.hash


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


@dataclass(frozen=True, eq=False)
class Tables:
    """The two tables of a source that is in memory, with the interface of a store."""

    source: Source

    def both(self) -> JoinedTables:
        """Return the train table with the test table behind it."""
        pair = (self.source.train, self.source.test)
        return JoinedTables(*(ImageTable(table.images.numpy(), table.labels.numpy()) for table in pair))

    def rows(self) -> StoredRows:
        """Return the rows of both tables."""
        train, test = self.source.train, self.source.test
        return StoredRows(torch.cat([train.labels, test.labels]), train.classes, fingerprint(train, test))


@dataclass(frozen=True)
class Store:
    """The folder of the decoded `train` and `test` tables, with their class names."""

    directory: Path

    @property
    def exists(self) -> bool:
        """Whether the folder was written to its end."""
        return (self.directory / "tables.json").exists()

    def write(self, tables: dict[str, tuple[Tensor, Tensor]], facts: dict[str, object]) -> None:
        """Write the tables and `facts` (JSON); the facts come last and mark the folder as whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, (images, labels) in tables.items():
            np.save(self.directory / f"{name}-images.npy", images.numpy())
            np.save(self.directory / f"{name}-labels.npy", labels.numpy())
        write_bytes_atomic(self.directory / "tables.json", json.dumps(facts).encode())

    @property
    def facts(self) -> dict[str, Any]:
        """What was written beside the tables."""
        facts: dict[str, Any] = json.loads((self.directory / "tables.json").read_text())
        return facts

    def table(self, name: str) -> ImageTable:
        """Open the table `train` or `test`."""
        return ImageTable(
            np.load(self.directory / f"{name}-images.npy", mmap_mode="r"),
            np.load(self.directory / f"{name}-labels.npy"),
        )

    def both(self) -> JoinedTables:
        """Open the train table with the test table behind it."""
        return JoinedTables(self.table("train"), self.table("test"))

    def rows(self) -> StoredRows:
        """Return the rows of both tables."""
        facts = self.facts
        labels = [torch.from_numpy(np.load(self.directory / f"{name}-labels.npy")) for name in ("train", "test")]
        return StoredRows(torch.cat(labels), tuple(facts["classes"]), facts["fingerprint"])
