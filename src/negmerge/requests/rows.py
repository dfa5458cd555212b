"""What a rule may ask of rows, whatever they are rows of."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor


class Rows(Protocol):
    """The rows of a table: how many there are, the group of each, and what tells the table from any other.

    A group is what rows have in common: a class, an author, a document. `group_of` is int64 [n], from 0, and counts
    the names in `groups`.
    """

    def __len__(self) -> int: ...

    @property
    def group_of(self) -> Tensor:
        """The number of each row's group, int64 [n]."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything in the table, in hexadecimal."""
        ...


class Joined(Protocol):
    """Two tables in one, behind one another: which rows of the train and of the test table are the second's, bool."""

    @property
    def train_is_other(self) -> Tensor:
        """Whether each row of the train table came from the second source."""
        ...

    @property
    def test_is_other(self) -> Tensor:
        """Whether each row of the test table came from the second source."""
        ...


@runtime_checkable
class Named(Protocol):
    """Rows that have names of their own: paths of files, or ids."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of each row; empty where rows go by their numbers alone."""
        ...


@runtime_checkable
class Described(Protocol):
    """Rows of which more is known than their group."""

    @property
    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Values of each row, by the name of their column: texts, numbers, booleans or None."""
        ...


@runtime_checkable
class Hashed(Protocol):
    """Rows whose content has a hash, each by itself."""

    def row_hash(self, row: int) -> str | None:
        """Return the hash of one row's content, with the name of its algorithm: `sha256:…`; None where it has none."""
        ...


def ids_of(rows: Rows) -> Sequence[str]:
    """Return the name of each row: its own, or else its number in the table."""
    found = rows.ids if isinstance(rows, Named) else ()
    return found or [str(number) for number in range(len(rows))]


def columns_of(rows: Rows) -> Mapping[str, Sequence[Any]]:
    """Return the columns that a rule may ask for; none where nothing but groups is known."""
    return rows.columns if isinstance(rows, Described) else {}


def describe_row(rows: Rows, row: int, ids: Sequence[str]) -> dict[str, Any]:
    """Return what is written down of a row: its number and id, and where there are any its group and content's hash."""
    found: dict[str, Any] = {"row": row, "id": ids[row]}
    if rows.groups:
        found["group"] = rows.groups[int(rows.group_of[row])]
    content = rows.row_hash(row) if isinstance(rows, Hashed) else None
    return found if content is None else {**found, "hash": content}
