"""Rows that are tensors of one shape with a class each: tables, their split, their folder in a run, their batches."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.requests.split_files import fingerprint
from negmerge.tasks.rows.epochs import begin_epoch, steps_in
from negmerge.tasks.rows.loading import LoadedRows, split_rows
from negmerge.tasks.rows.row_set import Grouped
from negmerge.tasks.rows.store import BothTables, TableStore
from negmerge.tasks.settings import DataConfig


@dataclass(frozen=True, eq=False)
class TensorTable(Grouped):
    """Inputs [n, …], labels int64 [n] from 0, and the class names that the labels count.

    >>> table = TensorTable(torch.eye(3), torch.tensor([0, 1, 1]), ("red", "white"))
    >>> len(table), table.take(torch.tensor([2]))
    (3, (tensor([[0., 0., 1.]]), tensor([1])))
    """

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and labels of these rows (int64 [m]), in their order."""
        return self.inputs[rows], self.labels[rows]

    def row_hash(self, row: int) -> str:
        """Return the hash of a row's input, with the name of its algorithm."""
        return f"sha256:{hashlib.sha256(_bytes(self.inputs[row])).hexdigest()}"

    def fingerprint(self) -> str:
        """Return the sha256 of inputs, labels and class names, in hexadecimal."""
        digest = hashlib.sha256(repr((tuple(self.inputs.shape), str(self.inputs.dtype), self.classes)).encode())
        digest.update(_bytes(self.inputs) + _bytes(self.labels))
        return digest.hexdigest()

    def followed_by(self, other: "TensorTable") -> "TensorTable":
        """Return the table with the rows of another one behind its own."""
        inputs, labels = torch.cat([self.inputs, other.inputs]), torch.cat([self.labels, other.labels])
        return TensorTable(inputs, labels, self.classes)


@dataclass(frozen=True, eq=False)
class TensorTables(BothTables[TensorTable]):
    """The two tables in memory, of the same classes."""

    train: TensorTable
    test: TensorTable

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Classes, hash and size, as JSON values."""
        size = self.train.inputs.nbytes + self.test.inputs.nbytes
        return {"classes": list(self.train.classes), "fingerprint": fingerprint(self.train, self.test), "bytes": size}

    def table(self, name: str) -> TensorTable:
        """Return the table `train` or `test`."""
        return self.train if name == "train" else self.test


@dataclass(frozen=True)
class TensorStore(TableStore[TensorTable]):
    """The folder of both tables, a safetensors file each."""

    def save(self, name: str, table: TensorTable) -> None:
        """Write one table."""
        content = {"inputs": table.inputs.contiguous(), "labels": table.labels.contiguous()}
        write_state_dict(self._file(name), content)

    def table(self, name: str) -> TensorTable:
        """Return the table `train` or `test`."""
        found = read_state_dict(self._file(name))
        return TensorTable(found["inputs"], found["labels"], tuple(self.facts["classes"]))

    def _file(self, name: str) -> Path:
        return self.directory / f"{name}.safetensors"


def with_split(tables: TensorTables, data: DataConfig) -> LoadedRows[TensorTables, TensorTable]:
    """Return the tables with the split that a config asks for.

    Raises InputError for a forget set of another source, and as drawing or reading a split does.
    """
    if data.forget is not None and data.forget.source is not None:
        raise InputError("data.forget.source: this task does not join two sources; name classes, rows or a fraction")
    return LoadedRows(tables, split_rows(data, tables), tables)


@dataclass(frozen=True)
class TensorBatches:
    """Seeded, shuffled batches (inputs, labels) of rows of a table, on a device; every row is in an epoch once.

    Epoch e is drawn from (seed, e) alone, and so are torch's global random numbers in it, as for dropout.
    """

    table: TensorTable
    rows: Tensor
    size: int
    seed: int
    device: torch.device | str

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return steps_in(len(self.rows), self.size)

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch."""
        order = self.rows[torch.randperm(len(self.rows), generator=begin_epoch(self.seed, epoch))]
        for chosen in order.split(self.size):
            inputs, labels = self.table.take(chosen)
            yield inputs.to(self.device), labels.to(self.device)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
