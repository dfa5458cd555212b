"""Token numbers on disk: texts encoded once in a run, then memory-mapped by every process that needs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from negmerge.tasks.rows.store import ArrayStore

SHOWN = "shown"  # among the facts: how test texts begin


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


@dataclass(frozen=True)
class TokenStore(ArrayStore[TokenTable]):
    """The folder of the encoded `train` and `test` tables, with their class names."""

    TABLE: ClassVar[type[Any]] = TokenTable
    MAPPED: ClassVar[tuple[str, ...]] = ("tokens",)
