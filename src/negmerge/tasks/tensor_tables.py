"""Rows that are tensors of one shape with a class each: tables, their split, their folder in a run, their batches."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.errors import InputError
from negmerge.requests.split_files import fingerprint
from negmerge.requests.splits import Split, draw_split, split_from_file
from negmerge.seeding import derive_seed
from negmerge.tasks.image_classification.settings import DataConfig

TABLES = ("train", "test")


@dataclass(frozen=True, eq=False)
class TensorTable:
    """Inputs [n, …], labels int64 [n] from 0, and the class names that the labels count.

    >>> table = TensorTable(torch.eye(3), torch.tensor([0, 1, 1]), ("red", "white"))
    >>> len(table), table.take(torch.tensor([2]))
    (3, (tensor([[0., 0., 1.]]), tensor([1])))
    """

    inputs: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def group_of(self) -> Tensor:
        """The labels: rows of one class are a group."""
        return self.labels

    @property
    def groups(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

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


@dataclass(frozen=True, eq=False)
class TensorRows:
    """The rows of both tables, the test table behind the train table."""

    group_of: Tensor
    groups: tuple[str, ...]
    hash: str

    def __len__(self) -> int:
        return len(self.group_of)

    def fingerprint(self) -> str:
        """Return the hash of both tables."""
        return self.hash


@dataclass(frozen=True, eq=False)
class TensorTables:
    """The two tables in memory, of the same classes."""

    train: TensorTable
    test: TensorTable

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Classes, hash and size, as JSON values."""
        size = sum(table.inputs.nbytes for table in (self.train, self.test))
        return {"classes": list(self.train.classes), "fingerprint": fingerprint(self.train, self.test), "bytes": size}

    @cached_property
    def both(self) -> TensorTable:
        """The train table with the test table behind it."""
        inputs, labels = ([getattr(table, part) for table in (self.train, self.test)] for part in ("inputs", "labels"))
        return TensorTable(torch.cat(inputs), torch.cat(labels), self.train.classes)

    def rows(self) -> TensorRows:
        """Return the rows of both tables."""
        return TensorRows(self.both.labels, self.both.classes, self.facts["fingerprint"])


@dataclass(frozen=True)
class TensorStore:
    """The folder of both tables, opened once in a process; only its path is sent to another one."""

    directory: Path

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}

    @property
    def exists(self) -> bool:
        """Whether the folder was written to its end."""
        return (self.directory / "tables.json").exists()

    def write(self, tables: TensorTables) -> None:
        """Write the tables; the facts come last and mark the folder as whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            table: TensorTable = getattr(tables, name)
            content = {"inputs": table.inputs.contiguous(), "labels": table.labels.contiguous()}
            write_state_dict(self.directory / f"{name}.safetensors", content)
        write_bytes_atomic(self.directory / "tables.json", json.dumps(tables.facts).encode())

    @property
    def facts(self) -> dict[str, Any]:
        """What was written beside the tables."""
        facts: dict[str, Any] = json.loads((self.directory / "tables.json").read_text())
        return facts

    def table(self, name: str) -> TensorTable:
        """Return the table `train` or `test`."""
        return getattr(self._tables, name)  # type: ignore[no-any-return]

    @property
    def both(self) -> TensorTable:
        """The train table with the test table behind it."""
        return self._tables.both

    def rows(self) -> TensorRows:
        """Return the rows of both tables."""
        return TensorRows(self.both.labels, self.both.classes, self.facts["fingerprint"])

    @cached_property
    def _tables(self) -> TensorTables:
        classes = tuple(self.facts["classes"])
        found = (read_state_dict(self.directory / f"{name}.safetensors") for name in TABLES)
        return TensorTables(*(TensorTable(one["inputs"], one["labels"], classes) for one in found))


@dataclass(frozen=True)
class LoadedTensors:
    """The tables of a run with their split."""

    tables: TensorTables
    split: Split

    @property
    def source(self) -> TensorTables:
        """The tables, as requests see them."""
        return self.tables

    @property
    def described(self) -> dict[str, Any]:
        """The facts of the tables, as plain JSON values."""
        return self.tables.facts

    def write(self, store: TensorStore) -> None:
        """Write the tables into a store, once and for all processes."""
        store.write(self.tables)


def with_split(tables: TensorTables, data: DataConfig) -> LoadedTensors:
    """Return the tables with the split that a config asks for.

    Raises InputError for a forget set of another source, and as drawing or reading a split does.
    """
    if data.split is not None:
        return LoadedTensors(tables, split_from_file(data.split, tables.train, tables.test))
    assert data.forget is not None
    if data.forget.source is not None:
        raise InputError("data.forget.source: this task does not join two sources; name classes, rows or a fraction")
    split = draw_split(
        tables.train,
        tables.test,
        forget=data.forget,
        retain=data.retain,
        validation=data.validation,
        train_rows=data.train_rows,
        seed=data.seed,
    )
    return LoadedTensors(tables, split)


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
        return max(1, -(-len(self.rows) // self.size))

    def __call__(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
        torch.manual_seed(derive_seed(self.seed, "dropout", epoch))
        order = self.rows[torch.randperm(len(self.rows), generator=generator)]
        for chosen in order.split(self.size):
            inputs, labels = self.table.take(chosen)
            yield inputs.to(self.device), labels.to(self.device)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
