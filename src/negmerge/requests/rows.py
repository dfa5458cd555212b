"""What a rule may ask of rows, whatever they are rows of."""

from typing import Protocol

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
