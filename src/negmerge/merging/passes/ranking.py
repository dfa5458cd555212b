"""The k-th largest magnitude of numbers that are seen in chunks: exact, by radix selection, in bounded memory.

The bits of a non-negative float, read as an integer, have the order of the floats. So the k-th largest is found digit
by digit from the top: a pass counts how often each value of the digit occurs among the numbers whose higher digits are
those already known, and the counts say which digit the k-th largest has.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

DIGIT = 16  # bits, the last digit of each dtype has 15: 31 and 63 bits hold a magnitude


@dataclass
class RankSearch:
    """Finds the magnitudes at `ranks` (1 is the largest) of each of N rows of `total` numbers; ties count singly.

    Every pass `add`s all numbers, in chunks, from threads, until `done`; then `values` are the magnitudes [N, ranks].
    """

    members: int
    ranks: Sequence[int]
    total: int
    dtype: torch.dtype
    done: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._bits = 63 if self.dtype == torch.float64 else 31
        self._integers = torch.int64 if self.dtype == torch.float64 else torch.int32
        self._low = self._bits  # the bits from here on are known
        self._known = torch.zeros(self.members, len(self.ranks), dtype=torch.int64)
        self._rest = torch.tensor([list(self.ranks)] * self.members, dtype=torch.int64)
        self._counts: Tensor | None = None
        self.passes = -(-self._bits // DIGIT)
        self.done = self.total == 0
        self._begin_pass()

    @property
    def values(self) -> Tensor:
        """The magnitudes found."""
        return self._known.to(self._integers).view(self.dtype)

    @property
    def digit(self) -> tuple[Tensor, int, int]:
        """What this pass counts: known bits [N, queries], and the digit's bits, from `low` up to `high`."""
        return self._known[:, : self._queries], self._low, self._low - self._width

    def add(self, deltas: Tensor) -> None:
        """Count a chunk [N, n] of the numbers; the last chunk of a pass ends it."""
        bits = deltas.to(self.dtype).view(self._integers) & ((1 << self._bits) - 1)
        known, high, low = self.digit
        counts = torch.zeros(self.members, self._queries, 1 << self._width, dtype=torch.int32)
        for i, row in enumerate(bits):
            for query in range(self._queries):
                same = row if high == self._bits else row[(row >> high) == known[i, query]]
                counts[i, query] = torch.bincount((same >> low) & ((1 << self._width) - 1), minlength=1 << self._width)
        self.add_counts(counts, deltas.shape[1])

    def add_counts(self, counts: Tensor, size: int) -> None:
        """Take over what was counted [N, queries, values of the digit] in a chunk of `size` numbers."""
        with self._lock:
            if self._counts is None:  # not before it is needed: a search that waits for its turn takes no memory
                self._counts = torch.zeros(counts.shape, dtype=torch.int64)
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
                falling = self._counts[i, min(r, self._queries - 1)].flip(0)
                reached = falling.cumsum(0)
                place = int(torch.searchsorted(reached, self._rest[i, r]))
                self._rest[i, r] -= int(reached[place] - falling[place])
                self._known[i, r] = (int(self._known[i, r]) << self._width) | (len(falling) - 1 - place)
        self._low -= self._width
        self.done = self._low == 0
        self._begin_pass()
