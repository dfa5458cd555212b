"""The compiled way to the statistics of a pool: every block of all members at once, counted and multiplied."""

import threading
from collections.abc import Sequence

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.finishing import finish
from negmerge.merging.compiled.folding import GROUP, begin, fold_members
from negmerge.merging.compiled.loop import Found
from negmerge.merging.compiled.measuring import SAMPLE, add_agreement, add_effect, add_octaves
from negmerge.merging.compiled.reading import FINE, FLOAT32, NOT_FINITE, UNREADABLE, load
from negmerge.merging.compiled.rules import Rule
from negmerge.merging.compiled.sources import Sources
from negmerge.merging.compiled.storing import SUBTRACT, apply, write
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.pool import Pool

ROWS = 2**12  # elements of every member that are held at a time


@compiled
def _add_effect(kind, base, delta, scratch, halves, effect):  # type: ignore[no-untyped-def]
    values, written, origin = scratch[0], scratch[1], scratch[2]
    if apply(base, delta, SUBTRACT, np.float32(1), values):
        return  # it leaves the range, which only a merge is refused for
    if kind == FLOAT32:
        add_effect(base, delta, values, values, base, effect)
    elif not write(kind, kind, base, values, halves, written, origin):
        add_effect(base, delta, values, written, origin, effect)
        add_octaves(delta, origin, written, effect)


@compiled
def inspect_pieces(  # type: ignore[no-untyped-def]
    descriptors, offsets, kinds, starts, lengths, rule, need, rows, sums, votes, raw, found
):  # fmt: skip
    """Count and multiply pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. descriptors, offsets, kinds: [pieces, 1 + N]; starts, lengths: [pieces]; the effect is
    that of α = 1 in the dtype of the base. Scratch: rows [1 + N, ROWS], sums [6, ROWS], votes and raw [2, ROWS].
    """
    states = np.zeros(len(lengths), np.uint8)
    members = len(rows) - 1
    untrimmed = np.zeros(members, np.float32)
    for p in range(len(lengths)):
        for first in range(0, lengths[p], rows.shape[1]):
            n = min(rows.shape[1], lengths[p] - first)
            total, low, high, up, down = sums[0, :n], sums[1, :n], sums[2, :n], votes[0, :n], votes[1, :n]
            for i in range(1 + members):
                if not load(descriptors[p, i], offsets[p, i], kinds[p, i], starts[p] + first, raw[0], rows[i, :n]):
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
            found.kept[p] += keeps
            _add_effect(kinds[p, 0], base, total, sums[3:, :n], raw[1, :n], found.effects[p])
            for i in range(1, 1 + members):
                for j in range(n):
                    rows[i, j] -= base[j]
            products = found.products[found.vectors[p]]
            for at in range(0, n, SAMPLE):
                add_agreement(rows[:, at : min(at + SAMPLE, n)], low, high, products, found.agreement)
    return states


class FusedInspection:
    """Statistics of pieces of tensors that the loops can read; several threads may ask it."""

    def __init__(self, pool: Pool, rule: Rule, names: Sequence[str]) -> None:
        self._rule, self._members = rule, len(pool.members)
        self._sources = Sources(pool, names)
        self._scratch = threading.local()

    def inspect(self, pieces: Sequence[Piece]) -> Found | None:
        """Return what was found in pieces; None where the numbers are wrong."""
        width = 1 + self._members
        if not hasattr(self._scratch, "rows"):
            self._scratch.rows = np.empty((width, ROWS), np.float32)
            self._scratch.sums = np.empty((6, ROWS), np.float32)
            self._scratch.votes = np.empty((2, ROWS), np.int32)
            self._scratch.raw = np.empty((2, ROWS), np.uint16)
        rows, scratch = self._sources.rows(pieces), self._scratch
        found = Found.of(self._sources.vectors[rows], self._members)
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
            found,
        )
        return found if (states == FINE).all() else None
