"""k-th magnitudes in one read: a sample says between which two numbers each lies, a pass counts and keeps these few.

Whatever the sample is like, the result is exact: where the k-th magnitude is not between the two numbers, or too many
are, nothing is found, and the digits are counted as for any other search.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.reading import FINE, NOT_FINITE, UNREADABLE, load
from negmerge.merging.passes.ranking import RankSearch

SAMPLE = (
    2**16
)  # elements that the two numbers are taken from: the k-th is missed by at most 0.2 % of all, nearly always
RUN = 64  # elements of a sample that lie together
WIDTH = 5.0  # standard deviations of a rank in the sample, from the k-th to either number
ROOM = 2**24  # magnitudes of all members that may be kept of one search, 64 MiB
SHARE = 16  # of so many elements of a piece, one may be kept
GROUP = 16  # elements that are compared at once
OVERFLOW = 3  # the state of a piece that more lies between the two numbers of than may be kept

Array = np.ndarray[Any, Any]


@compiled
def sample_magnitudes(places, kinds, starts, floats, raw, found):  # type: ignore[no-untyped-def]
    """Set found [N, len(starts) · RUN] to magnitudes of RUN elements from each of `starts` on; return the state.

    Checkpoint 0 is the base. places: [1 + N, 2], kinds: [1 + N]; floats [2, block] and raw [block] are scratch.
    """
    base, member = floats[0, :RUN], floats[1, :RUN]
    for s in range(len(starts)):
        if not load(places[0, 0], places[0, 1], kinds[0], starts[s], raw, base):
            return UNREADABLE
        for i in range(1, len(kinds)):
            if not load(places[i, 0], places[i, 1], kinds[i], starts[s], raw, member):
                return UNREADABLE
            for j in range(RUN):
                found[i - 1, s * RUN + j] = abs(member[j] - base[j])
    return FINE


@compiled
def _between(base, member, low, high, kept, count):  # type: ignore[no-untyped-def]
    """Keep the magnitudes from low to high, behind the `count` that are there; return how many are above, and there.

    A negative number of those above: there is a NaN or Inf; a number there beyond the room: it ends before.
    """
    above, bad = 0, 0
    for first in range(0, len(base), GROUP):
        n = min(GROUP, len(base) - first)
        hits = 0
        for j in range(first, first + n):
            size = abs(member[j] - base[j])
            above += size > high
            hits += (size >= low) & (size <= high)
            bad += not (size < np.inf)
        if hits:
            if count + hits > len(kept):
                return above, len(kept) + 1
            for j in range(first, first + n):
                size = abs(member[j] - base[j])
                if (size >= low) & (size <= high):
                    kept[count] = size
                    count += 1
    return (-1 if bad else above), count


@compiled
def bracket_piece(places, kinds, start, length, low, high, floats, raw, above, kept, counts):  # type: ignore[no-untyped-def]
    """Count the magnitudes of a piece above `high`, and keep those from `low` to `high`; return the state.

    Checkpoint 0 is the base. places: [1 + N, 2], kinds: [1 + N]; low, high: float32 [N, R]; above, counts: int64
    [N, R], added to; kept: float32 [N, R, room]; floats [2, block] and raw [block] are scratch.
    """
    block = floats.shape[1]
    for first in range(0, length, block):
        n = min(block, length - first)
        base, member = floats[0, :n], floats[1, :n]
        if not load(places[0, 0], places[0, 1], kinds[0], start + first, raw, base):
            return UNREADABLE
        for i in range(1, len(kinds)):
            if not load(places[i, 0], places[i, 1], kinds[i], start + first, raw, member):
                return UNREADABLE
            for r in range(low.shape[1]):
                own = kept[i - 1, r]
                more, count = _between(base, member, low[i - 1, r], high[i - 1, r], own, counts[i - 1, r])
                if more < 0:
                    return NOT_FINITE
                if count > len(own):
                    return OVERFLOW
                above[i - 1, r] += more
                counts[i - 1, r] = count
    return FINE


def bounds_of(sample: Array, ranks: Sequence[int], total: int) -> tuple[Array, Array]:
    """Return the numbers [N, R] between which the magnitudes at `ranks` of `total` lie, judged by a sample [N, s]."""
    size = sample.shape[1]
    low, high = np.zeros((len(sample), len(ranks)), np.float32), np.full((len(sample), len(ranks)), np.inf, np.float32)
    for r, rank in enumerate(ranks):
        share = rank / total
        margin = WIDTH * np.sqrt(size * share * (1 - share)) + 2
        first, last = int(size * share - margin), int(size * share + margin) + 1  # from the largest
        places = [size - 1 - place for place in (first, last) if 0 <= place < size]
        sorted_there = np.partition(sample, places, axis=1) if places else sample
        if first >= 0:
            high[:, r] = sorted_there[:, size - 1 - first]
        if last < size:
            low[:, r] = sorted_there[:, size - 1 - last]
    return low, high


@dataclass
class Bracket:
    """A search whose magnitudes lie between low and high [N, R]; `add` takes what was found in pieces, from threads."""

    search: RankSearch
    low: Array
    high: Array
    _above: Array = field(init=False)
    _kept: list[tuple[Array, Array]] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _left: int = field(init=False)
    _room: int = field(default=ROOM, init=False)

    def __post_init__(self) -> None:
        self._above = np.zeros(self.low.shape, np.int64)
        self._left = self.search.total

    def add(self, above: Array, kept: Array, counts: Array, size: int) -> None:
        """Take what a piece of `size` elements has above and between; the last piece ends the search, if it can be."""
        flat = np.concatenate([part[:n] for part, n in zip(kept.reshape(-1, kept.shape[-1]), counts.flat, strict=True)])
        with self._lock:
            self._above += above
            self._kept.append((flat, counts))
            self._left -= size
            self._room -= len(flat)
            if self._room < 0:
                self.give_up()
            elif self._left == 0:
                self._settle()

    def give_up(self) -> None:
        """Forget what was kept: the digits will be counted."""
        self._left, self._kept = -1, []

    def _settle(self) -> None:
        values = np.zeros(self.low.shape, np.float32)
        ends = [np.cumsum(counts) for _, counts in self._kept]
        for k, (i, r) in enumerate(np.ndindex(*values.shape)):
            own = np.concatenate(
                [flat[end[k] - counts.flat[k] : end[k]] for (flat, counts), end in zip(self._kept, ends, strict=True)]
            )
            rank = self.search.ranks[r] - int(self._above[i, r])
            if not 0 < rank <= len(own):
                return
            values[i, r] = np.partition(own, len(own) - rank)[len(own) - rank]
        self.search.settle(values)
        self._kept = []


def fits(search: RankSearch) -> bool:
    """Whether what a search would keep has room, by far."""
    shares = [rank / search.total for rank in search.ranks]
    between = sum(2 * WIDTH * np.sqrt(share * (1 - share) / SAMPLE) + 6 / SAMPLE for share in shares)
    return bool(search.total > 4 * SAMPLE and 2 * between * search.total * search.members < ROOM)
