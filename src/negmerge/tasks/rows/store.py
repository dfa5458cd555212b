"""The two tables of a run as a task reads them: in memory, or in a folder that all processes of the run share."""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic

TABLES = ("train", "test")


class Table(Protocol):
    """Rows [n] as a task takes them."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Any:
        """The number of each row's group, int64 [n], an array or a tensor."""
        ...

    def followed_by(self, other: Self, /) -> Any:
        """Return the table with the rows of another one behind its own."""
        ...


Kind = TypeVar("Kind", bound=Table)


@dataclass(frozen=True, eq=False)
class StoredRows:
    """The rows of both tables, the test table behind the train table: the group of each, the groups, their hash."""

    group_of: Tensor
    groups: tuple[str, ...]
    hash: str

    def __len__(self) -> int:
        return len(self.group_of)

    def fingerprint(self) -> str:
        """Return the hash of content, labels and names of the groups of both tables."""
        return self.hash


class BothTables(ABC, Generic[Kind]):
    """The table `train` and the table `test`, with facts: JSON values, among them `classes` and `fingerprint`.

    A frozen dataclass; only its fields are sent to another process.
    """

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """What is known of both: names of the groups, hash, size, and what the task adds."""

    @abstractmethod
    def table(self, name: str) -> Kind:
        """Return the table `train` or `test`."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: self.__dict__[field.name] for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    @cached_property
    def both(self) -> Any:
        """The train table with the test table behind it."""
        train, test = (self.table(name) for name in TABLES)
        return train.followed_by(test)

    def rows(self) -> StoredRows:
        """Return the rows of both tables."""
        facts, labels = self.facts, [torch.as_tensor(self.table(name).labels) for name in TABLES]
        return StoredRows(torch.cat(labels), tuple(facts["classes"]), facts["fingerprint"])


@dataclass(frozen=True, eq=False)
class MemoryTables(BothTables[Kind]):
    """Tables in memory, with the interface of a store."""

    train: Kind
    test: Kind
    known: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was given as known."""
        return self.known

    def table(self, name: str) -> Kind:
        """Return the table `train` or `test`."""
        found: Kind = getattr(self, name)
        return found


@dataclass(frozen=True)
class TableStore(BothTables[Kind]):
    """The folder of both tables, opened once in a process; a kind of rows says how one table is saved and read."""

    directory: Path

    @abstractmethod
    def save(self, name: str, table: Kind) -> None:
        """Write one table into the folder."""

    @property
    def exists(self) -> bool:
        """Whether the folder was written to its end."""
        return (self.directory / "tables.json").exists()

    def write(self, tables: BothTables[Kind]) -> None:
        """Write tables and facts; the facts come last and mark the folder as whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in TABLES:
            self.save(name, tables.table(name))
        write_bytes_atomic(self.directory / "tables.json", json.dumps(dict(tables.facts)).encode())

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was written beside the tables."""
        facts: dict[str, Any] = json.loads((self.directory / "tables.json").read_text())
        return facts


class ArrayStore(TableStore[Kind]):
    """A store of tables that are dataclasses of arrays: each a file of numpy's, those of `MAPPED` memory-mapped."""

    TABLE: ClassVar[type[Any]]
    MAPPED: ClassVar[tuple[str, ...]]

    def save(self, name: str, table: Kind) -> None:
        """Write `NAME-ARRAY.npy` for each array of a table."""
        for field in dataclasses.fields(self.TABLE):
            np.save(self._file(name, field.name), getattr(table, field.name))

    def table(self, name: str) -> Kind:
        """Open the table `train` or `test`."""
        names = [field.name for field in dataclasses.fields(self.TABLE)]
        files = {array: self._file(name, array) for array in names}
        found: Kind = self.TABLE(*(np.load(files[a], mmap_mode="r" if a in self.MAPPED else None) for a in names))
        return found

    def _file(self, name: str, array: str) -> Path:
        return self.directory / f"{name}-{array}.npy"
