"""Token numbers on disk: texts encoded once in a run, then memory-mapped by every process that needs them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from negmerge.checkpoints import write_bytes_atomic

TABLES = ("train", "test")


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Token numbers of n texts, one behind the other, int32; offsets int64 [n + 1], labels int64 [n]."""

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: Tensor) -> tuple[list[np.ndarray], Tensor]:
        """Return the token numbers of each of these rows, in their order, and the labels."""
        index = rows.numpy()
        found = [self.tokens[self.offsets[row] : self.offsets[row + 1]] for row in index]
        return found, torch.from_numpy(self.labels[index])

    def followed_by(self, other: "TokenTable") -> "TokenTable":
        """Return the table with the rows of another one behind its own."""
        return TokenTable(
            np.concatenate([self.tokens, other.tokens]),
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            np.concatenate([self.labels, other.labels]),
        )


def table_of(encoded: Sequence[Sequence[int]], labels: Tensor) -> TokenTable:
    """Return the table of encoded texts.

    >>> table_of([[1, 5], [1]], torch.tensor([0, 1])).lengths.tolist()
    [2, 1]
    """
    offsets = np.cumsum([0, *(len(row) for row in encoded)], dtype=np.int64)
    return TokenTable(np.array([n for row in encoded for n in row], dtype=np.int32), offsets, labels.numpy())


@dataclass(frozen=True, eq=False)
class TextRows:
    """The rows of both tables, the test table behind the train table: their labels, class names and hash."""

    group_of: Tensor
    groups: tuple[str, ...]
    hash: str

    def __len__(self) -> int:
        return len(self.group_of)

    def fingerprint(self) -> str:
        """Return the hash of texts, labels and class names of both tables."""
        return self.hash


@dataclass(frozen=True, eq=False)
class EncodedTables:
    """The two tables in memory, with the interface of a store."""

    tables: tuple[TokenTable, TokenTable]
    facts: dict[str, Any]

    def both(self) -> TokenTable:
        """Return the train table with the test table behind it."""
        return self.tables[0].followed_by(self.tables[1])

    def rows(self) -> TextRows:
        """Return the rows of both tables."""
        return _rows(self.both(), self.facts)


@dataclass(frozen=True)
class TokenStore:
    """The folder of the encoded `train` and `test` tables, with their class names."""

    directory: Path

    @property
    def exists(self) -> bool:
        """Whether the folder was written to its end."""
        return (self.directory / "tables.json").exists()

    def write(self, tables: tuple[TokenTable, TokenTable], facts: dict[str, Any]) -> None:
        """Write the tables and `facts` (JSON); the facts come last and mark the folder as whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for name, table in zip(TABLES, tables, strict=True):
            for part in ("tokens", "offsets", "labels"):
                np.save(self.directory / f"{name}-{part}.npy", getattr(table, part))
        write_bytes_atomic(self.directory / "tables.json", json.dumps(facts).encode())

    @property
    def facts(self) -> dict[str, Any]:
        """What was written beside the tables."""
        facts: dict[str, Any] = json.loads((self.directory / "tables.json").read_text())
        return facts

    def table(self, name: str) -> TokenTable:
        """Open the table `train` or `test`."""
        return TokenTable(
            np.load(self.directory / f"{name}-tokens.npy", mmap_mode="r"),
            np.load(self.directory / f"{name}-offsets.npy"),
            np.load(self.directory / f"{name}-labels.npy"),
        )

    def both(self) -> TokenTable:
        """Return the train table with the test table behind it."""
        return self.table("train").followed_by(self.table("test"))

    def rows(self) -> TextRows:
        """Return the rows of both tables."""
        return _rows(self.both(), self.facts)


def _rows(table: TokenTable, facts: dict[str, Any]) -> TextRows:
    return TextRows(torch.from_numpy(table.labels), tuple(facts["classes"]), facts["fingerprint"])
