"""Rows as tokens: encoded once in a run, then memory-mapped by every process that needs them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from negmerge.tasks.causal_lm.questions import OTHERS, OWN
from negmerge.tasks.causal_lm.windows import Window, windows_of
from negmerge.tasks.rows.store import ArrayStore

KINDS = (OWN, *OTHERS)


@dataclass(frozen=True, eq=False)
class Sequences:
    """The answers to rows [n] as tokens, one sequence for each of m answers, own and others.

    Sequence i is `tokens[offsets[i]:offsets[i + 1]]`, int32: a prompt, from `starts[i]` on an answer, and perhaps the
    label of its end. `row_of` int64 [m] says to which row's question, `kind_of` int64 [m] what kind it is (of `KINDS`):
    a row has one own answer. `labels` int64 [n] are the rows' groups, `zipped` int64 [n] the bytes of their own answers
    when compressed. `letters` uint8 are prompts and own answers as UTF-8, one behind the other, `cuts` int64 [2n + 1]
    where each begins; a text has an empty prompt.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray
    row_of: np.ndarray
    kind_of: np.ndarray
    labels: np.ndarray
    zipped: np.ndarray
    letters: np.ndarray
    cuts: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def followed_by(self, other: "Sequences") -> "Sequences":
        """Return the table with the rows of another one behind its own."""
        return Sequences(
            np.concatenate([self.tokens, other.tokens]),
            np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            np.concatenate([self.starts, other.starts]),
            np.concatenate([self.row_of, len(self) + other.row_of]),
            np.concatenate([self.kind_of, other.kind_of]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.zipped, other.zipped]),
            np.concatenate([self.letters, other.letters]),
            np.concatenate([self.cuts, self.cuts[-1] + other.cuts[1:]]),
        )

    @cached_property
    def own(self) -> np.ndarray:
        """The sequence of each row's own answer, int64 [n]."""
        found = np.flatnonzero(self.kind_of == KINDS.index(OWN))
        return found[np.argsort(self.row_of[found], kind="stable")]

    @cached_property
    def others(self) -> Mapping[int, list[int]]:
        """The sequences of other answers, by row."""
        found: dict[int, list[int]] = {}
        for sequence in np.flatnonzero(self.kind_of != KINDS.index(OWN)).tolist():
            found.setdefault(int(self.row_of[sequence]), []).append(sequence)
        return found

    def ids(self, sequence: int) -> Tensor:
        """Return the tokens of a sequence, int64."""
        found = self.tokens[self.offsets[sequence] : self.offsets[sequence + 1]]
        return torch.from_numpy(found.astype(np.int64))

    def windows(self, sequence: int, context: int, overlap: int) -> list[Window]:
        """Return the windows of a sequence."""
        length = int(self.offsets[sequence + 1] - self.offsets[sequence])
        return windows_of(length, int(self.starts[sequence]), context, overlap)

    def text(self, row: int) -> tuple[str, str]:
        """Return prompt and own answer of a row; of a text the prompt is empty."""
        ends = self.cuts[2 * row : 2 * row + 3]
        parts = (bytes(self.letters[a:b]).decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(ends))
        prompt, answer = parts
        return prompt, answer


class QuestionStore(ArrayStore[Sequences]):
    """The folder of the encoded `train` and `test` tables; further parts stand at the end of the test table."""

    TABLE: ClassVar[type[Sequences]] = Sequences
    MAPPED: ClassVar[tuple[str, ...]] = ("tokens", "letters")
