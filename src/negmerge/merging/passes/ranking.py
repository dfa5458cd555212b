"""The k-th largest magnitude of numbers that are seen in chunks: exact, by radix selection, in bounded memory.

The bits of a non-negative float, read as an integer, have the order of the floats. So the k-th largest is found digit
by digit from the top: a pass counts how often each value of the digit occurs among the numbers whose higher digits are
those already known, and the counts say which digit the k-th largest has.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
DIGIT = 16  # bits, the last digit of each dtype has 15: 31 and 63 bits hold a magnitude


@dataclass
class RankSearch:
    """Finds the magnitudes at `ranks` (1 is the largest) of each of N rows of `total` numbers; ties count singly.

    Every pass `add`s all numbers, in chunks, from threads, until `done`; then `values` are the magnitudes [N, ranks].
    """

    members: int
    ranks: Sequence[int]
    total: int
    dtype: np.dtype[Any]
    done: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._bits = 63 if self.dtype == np.float64 else 31
        self._integers = np.dtype(np.int64 if self.dtype == np.float64 else np.int32)
        self._low = self._bits  # the bits from here on are known
        self._known = np.zeros((self.members, len(self.ranks)), np.int64)
        self._rest = np.array([list(self.ranks)] * self.members, np.int64)
        self._counts: Array | None = None
        self.passes = -(-self._bits // DIGIT)
        self.done = self.total == 0
        self._begin_pass()

    @property
    def values(self) -> Array:
        """The magnitudes found, [N, ranks]."""
        return self._known.astype(self._integers).view(self.dtype)

    @property
    def digit(self) -> tuple[Array, int, int]:
        """What this pass counts: known bits [N, queries], and the digit's bits, from `low` up to `high`."""
        return self._known[:, : self._queries], self._low, self._low - self._width

    def add(self, deltas: Array) -> None:
        """Count a chunk [N, n] of the numbers; the last chunk of a pass ends it."""
        bits = deltas.astype(self.dtype, copy=False).view(self._integers) & ((1 << self._bits) - 1)
        known, high, low = self.digit
        mask, size = (1 << self._width) - 1, 1 << self._width
        counts = np.zeros((self.members, self._queries, size), np.int32)
        for i, row in enumerate(bits):
            for query in range(self._queries):
                same = row if high == self._bits else row[(row >> high) == known[i, query]]
                counts[i, query] = np.bincount((same >> low) & mask, minlength=size)
        self.add_counts(counts, deltas.shape[1])

    def add_counts(self, counts: Array, size: int) -> None:
        """Take over what was counted [N, queries, values of the digit] in a chunk of `size` numbers."""
        with self._lock:
            if self._counts is None:  # not before it is needed: a search that waits for its turn takes no memory
                self._counts = np.zeros(counts.shape, np.int64)
            self._counts += counts
            self._left -= size
            if self._left == 0:
                self._end_pass()

    def _begin_pass(self) -> None:
        self._width = min(DIGIT, self._low)
        self._left = self.total
        self._counts = None
        # Before a digit is known, all ranks look at the same numbers.
        self._queries: int = 1 if self._low == self._bits else len(self.ranks)

    def _end_pass(self) -> None:
        assert self._counts is not None
        for i in range(self.members):
            for r in range(len(self.ranks)):
                falling = self._counts[i, min(r, self._queries - 1)][::-1]
                reached = falling.cumsum()
                place = int(np.searchsorted(reached, self._rest[i, r]))
                self._rest[i, r] -= int(reached[place] - falling[place])
                self._known[i, r] = (int(self._known[i, r]) << self._width) | (len(falling) - 1 - place)
        self._low -= self._width
        self.done = self._low == 0
        self._begin_pass()
