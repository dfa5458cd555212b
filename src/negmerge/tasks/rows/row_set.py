"""Rows in memory, each of a group, whatever they are rows of; the two tables of a source; two sources in one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from negmerge.errors import InputError, shortened
from negmerge.requests.rows import ids_of


class Grouped:
    """Rows of which each is of a group: `labels`, int64 [n] from 0, count `classes`, the names of the groups."""

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


class RowSet(Grouped, ABC):
    """Rows [n]: what a kind of rows adds to this is a frozen dataclass with its content beside these fields.

    `ids` are the rows' own names, empty where a row goes by its number; `columns` holds what else is known of each.
    """

    ids: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]

    @abstractmethod
    def content_of(self, rows: Tensor) -> dict[str, Any]:
        """Return the fields of the content with these rows (int64 [m]) alone, in their order."""

    @abstractmethod
    def content_with(self, other: Any) -> dict[str, Any]:
        """Return the fields of the content with the rows of another set behind. Raises InputError for a misfit."""

    @abstractmethod
    def row_hash(self, row: int) -> str:
        """Return the hash of a row's content, with the name of its algorithm: `sha256:…`."""

    @abstractmethod
    def digest(self) -> str:
        """Return the sha256 of content, labels and names of the groups, in hexadecimal."""

    def take(self: "Set", rows: Tensor) -> "Set":
        """Return these rows (int64 [m]), in their order."""
        numbers = rows.tolist()
        ids = tuple(self.ids[row] for row in numbers) if self.ids else ()
        columns = {name: [values[row] for row in numbers] for name, values in self.columns.items()}
        return _with(self, labels=self.labels[rows], ids=ids, columns=columns, **self.content_of(rows))

    def counted_as(self: "Set", classes: tuple[str, ...]) -> "Set":
        """Return the same rows with labels that count other names, among which are the own."""
        if classes == self.classes:
            return self
        place = torch.tensor([classes.index(name) for name in self.classes], dtype=torch.int64)
        return _with(self, labels=place[self.labels], classes=classes)

    def followed_by(self: "Set", other: "Set", classes: tuple[str, ...], place: Tensor) -> "Set":
        """Return the rows with those of `other` behind them, whose label k becomes place[k]; columns are left out."""
        ids = (*ids_of(self), *ids_of(other)) if self.ids or other.ids else ()
        labels = torch.cat([self.labels, place[other.labels]])
        return _with(self, labels=labels, classes=classes, ids=ids, columns={}, **self.content_with(other))

    def fingerprint(self) -> str:
        """Return the hash of everything but names and columns of the rows; computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return self.digest()


Set = TypeVar("Set", bound=RowSet)


def _with(rows: Set, **fields: Any) -> Set:
    return replace(rows, **fields)  # type: ignore[type-var]  # every kind of rows is a dataclass


@dataclass(frozen=True, eq=False)
class RowSource(Generic[Set]):
    """The two tables of a source: `train` (also for validation) and `test`, of the same classes.

    `notes` say, a line each, what should be known of how they were read: files that were passed over, and the like.
    `groupless` says why rows are not told by the groups in a column that there is; nothing where they are.
    `drawn` says whether the test table is a share of what the train table was read from, which a model may know.

    Raises InputError where the classes differ.
    """

    train: Set
    test: Set
    notes: tuple[str, ...] = ()
    groupless: str = ""
    drawn: bool = False

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            ours, theirs = (shortened(table.classes, 6) for table in (self.train, self.test))
            raise InputError(
                f"the train table has the classes {ours} and the test table {theirs}; both must count the same classes "
                "in the same order"
            )

    def counted_as(self: "Pair", classes: tuple[str, ...]) -> "Pair":
        """Return the same tables with labels that count other names, among which are the own."""
        if classes == self.train.classes:
            return self
        return replace(self, train=self.train.counted_as(classes), test=self.test.counted_as(classes))


Pair = TypeVar("Pair", bound=RowSource[Any])


@dataclass(frozen=True, eq=False)
class JoinedSource(Generic[Pair]):
    """Two sources in one, and for each table which of its rows [n] came from the second."""

    source: Pair
    train_is_other: Tensor
    test_is_other: Tensor


def join_sources(first: Pair, other: Pair, *, unite: bool = True) -> JoinedSource[Pair]:
    """Put the rows of `other` behind those of `first`; classes of the same name become one, new ones are appended.

    Classes are matched by their whole name, case included, and several of one name in their order. With `unite` off
    all of them are appended, for models that have a head for each source. Raises InputError where the content of the
    rows does not fit together, such as images of two shapes.
    """
    ours_names, their_names = first.train.classes, other.train.classes
    if unite:
        ours_keys, their_keys = _numbered(ours_names), _numbered(their_names)
        keys = ours_keys + [key for key in their_keys if key not in ours_keys]
        classes = tuple(name for name, _ in keys)
        place = torch.tensor([keys.index(key) for key in their_keys])
    else:
        classes, place = ours_names + their_names, torch.arange(len(their_names)) + len(ours_names)
    tables = [(getattr(first, name), getattr(other, name)) for name in ("train", "test")]
    train, test = (a.followed_by(b, classes, place) for a, b in tables)
    source = replace(first, train=train, test=test, notes=(*first.notes, *other.notes))
    return JoinedSource(source, *(torch.arange(len(a) + len(b)) >= len(a) for a, b in tables))


def _numbered(names: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(name, names[:place].count(name)) for place, name in enumerate(names)]
