"""The compiled way to the statistics of a pool: every block of all members at once, counted and multiplied."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.finishing import finish
from negmerge.merging.compiled.folding import GROUP, begin, fold_members
from negmerge.merging.compiled.measuring import SAMPLE, add_agreement
from negmerge.merging.compiled.reading import FINE, NOT_FINITE, UNREADABLE, load
from negmerge.merging.compiled.rules import Rule
from negmerge.merging.compiled.sources import Sources
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.pool.fitted import Pool

ROWS = 2**12  # elements of every member that are held at a time


@compiled
def inspect_pieces(  # type: ignore[no-untyped-def]
    descriptors, offsets, kinds, starts, lengths, rule, need, rows, sums, votes, raw, kept, products, counts
):  # fmt: skip
    """Count and multiply pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. descriptors, offsets, kinds: [pieces, 1 + N]; starts, lengths, kept: [pieces]; products
    and counts: see add_agreement. rows [1 + N, ROWS], sums [3, ROWS], votes [2, ROWS] and raw [ROWS] are scratch.
    """
    states = np.zeros(len(lengths), np.uint8)
    members = len(rows) - 1
    untrimmed = np.zeros(members, np.float32)
    for p in range(len(lengths)):
        for first in range(0, lengths[p], rows.shape[1]):
            n = min(rows.shape[1], lengths[p] - first)
            total, low, high, up, down = sums[0, :n], sums[1, :n], sums[2, :n], votes[0, :n], votes[1, :n]
            for i in range(1 + members):
                if not load(descriptors[p, i], offsets[p, i], kinds[p, i], starts[p] + first, raw, rows[i, :n]):
                    states[p] = UNREADABLE
                    break
            if states[p]:
                break
            base = rows[0, :n]
            begin(rule, total, low, high, up, down)
            for i in range(0, members, GROUP):
                count = min(GROUP, members - i)
                some = slice(i, i + count)
                fold_members(rule, base, rows[1:][some], count, untrimmed[some], total, low, high, up, down)
            keeps, bad = finish(rule, total, low, high, up, down, need, np.float32(members))
            if bad:
                states[p] = NOT_FINITE
                break
            kept[p] += keeps
            for i in range(1, 1 + members):
                for j in range(n):
                    rows[i, j] -= base[j]
            for at in range(0, n, SAMPLE):
                add_agreement(rows[:, at : min(at + SAMPLE, n)], low, high, products, counts)
    return states


class FusedInspection:
    """Statistics of pieces of tensors that the loops can read; several threads may ask it."""

    def __init__(self, pool: Pool, rule: Rule, names: Sequence[str]) -> None:
        self._rule, self._members = rule, len(pool.members)
        self._sources = Sources(pool, names)
        self._scratch = threading.local()

    def inspect(self, pieces: Sequence[Piece]) -> tuple[np.ndarray[Any, Any], ...] | None:
        """Return what was kept of each piece, products and counts (see Agreement); None where the numbers are wrong."""
        width = 1 + self._members
        if not hasattr(self._scratch, "rows"):
            self._scratch.rows = np.empty((width, ROWS), np.float32)
            self._scratch.sums = np.empty((3, ROWS), np.float32)
            self._scratch.votes = np.empty((2, ROWS), np.int32)
            self._scratch.raw = np.empty(ROWS, np.uint16)
        rows, scratch = self._sources.rows(pieces), self._scratch
        kept = np.zeros(len(pieces), np.int64)
        products, counts = np.zeros((width, width)), np.zeros(1 + width, np.int64)
        states = inspect_pieces(
            self._sources.descriptors[rows],
            self._sources.offsets[rows],
            self._sources.kinds[rows],
            np.array([start for _, start, _ in pieces], np.int64),
            np.array([stop - start for _, start, stop in pieces], np.int64),
            self._rule.kind,
            self._rule.need,
            scratch.rows,
            scratch.sums,
            scratch.votes,
            scratch.raw,
            kept,
            products,
            counts,
        )
        return (kept, products, counts) if (states == FINE).all() else None
