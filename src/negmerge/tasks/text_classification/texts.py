"""Texts and labels in memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError


@dataclass(frozen=True, eq=False)
class TextSet:
    """Texts [n], labels int64 [n] from 0, and the class names that the labels count.

    >>> texts = TextSet(("good", "bad"), torch.tensor([1, 0]), ("no", "yes"))
    >>> len(texts), texts.counted_as(("maybe", "yes", "no")).labels.tolist()
    (2, [1, 2])

    `ids` are the rows' own names, empty where a row goes by its number; `columns` holds what else is known of each.
    """

    texts: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def group_of(self) -> Tensor:
        """The labels: rows of one class are a group."""
        return self.labels

    @property
    def groups(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def take(self, rows: Tensor) -> "TextSet":
        """Return the texts of these rows (int64 [m]), in their order."""
        numbers = rows.tolist()
        texts, ids = (tuple(of[row] for row in numbers) if of else () for of in (self.texts, self.ids))
        columns = {name: [values[row] for row in numbers] for name, values in self.columns.items()}
        return TextSet(texts, self.labels[rows], self.classes, ids, columns)

    def row_hash(self, row: int) -> str:
        """Return the hash of a row's text, with the name of its algorithm."""
        return f"sha256:{hashlib.sha256(self.texts[row].encode('utf-8', 'surrogatepass')).hexdigest()}"

    def counted_as(self, classes: tuple[str, ...]) -> "TextSet":
        """Return the same texts with labels that count other names, among which are the own."""
        place = torch.tensor([classes.index(name) for name in self.classes], dtype=torch.int64)
        return self if classes == self.classes else replace(self, labels=place[self.labels], classes=classes)

    def fingerprint(self) -> str:
        """Return the sha256 of texts, labels and class names, in hexadecimal; computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((len(self.texts), self.classes)).encode())
        for text in self.texts:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class TextSource:
    """The two tables of a source: `train` (also for validation) and `test`, of the same classes."""

    train: TextSet
    test: TextSet

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            raise InputError("the train and the test table must count the same classes in the same order")

    def counted_as(self, classes: tuple[str, ...]) -> "TextSource":
        """Return the same tables with labels that count other names, among which are the own."""
        return TextSource(self.train.counted_as(classes), self.test.counted_as(classes))


@dataclass(frozen=True, eq=False)
class JoinedTexts:
    """Two sources in one, and for each table which of its rows [n] came from the second."""

    source: TextSource
    train_is_other: Tensor
    test_is_other: Tensor


def join_texts(first: TextSource, other: TextSource) -> JoinedTexts:
    """Put the rows of `other` behind those of `first`; classes of the same name become one, new ones are appended."""
    ours = first.train.classes
    classes = (*ours, *(name for name in other.train.classes if name not in ours))
    first, other = first.counted_as(classes), other.counted_as(classes)

    def join(a: TextSet, b: TextSet) -> TextSet:
        named = a.ids or b.ids
        ids = tuple(name for t in (a, b) for name in (t.ids or map(str, range(len(t))))) if named else ()
        return TextSet(a.texts + b.texts, torch.cat([a.labels, b.labels]), classes, ids)

    def is_other(a: TextSet, b: TextSet) -> Tensor:
        return torch.cat([torch.zeros(len(a), dtype=torch.bool), torch.ones(len(b), dtype=torch.bool)])

    tables = [(getattr(first, name), getattr(other, name)) for name in ("train", "test")]
    return JoinedTexts(TextSource(*(join(a, b) for a, b in tables)), *(is_other(a, b) for a, b in tables))
