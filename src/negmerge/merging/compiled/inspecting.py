"""The compiled way to the statistics of a pool: every block of all members at once, counted and multiplied."""

import threading
from collections.abc import Sequence

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.finishing import finish
from negmerge.merging.compiled.folding import GROUP, STRICT, begin, fold_members
from negmerge.merging.compiled.loop import Found, put_halves
from negmerge.merging.compiled.measuring import add_agreement
from negmerge.merging.compiled.reading import BLOCK, FINE, FLOAT32, GAP, NOT_FINITE, UNREADABLE, load, subtract
from negmerge.merging.compiled.rules import Rule
from negmerge.merging.compiled.sources import Sources
from negmerge.merging.compiled.storing import SUBTRACT, apply
from negmerge.merging.passes.jobs import Piece
from negmerge.merging.pool.fitted import Pool

HELD = 2**18  # elements of all members that are held at a time: 1 MiB, at least 2^12 of each
SUMMED = 2**11  # elements whose products are summed in float32, before their sum is added in float64


@compiled
def _add_effect(kind, base, delta, values, written, origin, halves, effect):  # type: ignore[no-untyped-def]
    """Add the effect of α = 1; a result that leaves the range is one that only a merge is refused for."""
    changed = effect[0]
    beyond = apply(base, delta, SUBTRACT, np.float32(1), values, effect)
    if kind != FLOAT32 and beyond == 0:
        put_halves(kind, kind, base, delta, values, halves, written, origin, effect, changed)


@compiled
def inspect_pieces(  # type: ignore[no-untyped-def]
    places, kinds, starts, lengths, rule, need, block, rows, sums, votes, raw, found
):  # fmt: skip
    """Count and multiply pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. places: [pieces, 1 + N, 2]; kinds: [pieces, 1 + N]; starts, lengths: [pieces]; the effect
    is that of α = 1 in the dtype of the base. So many elements as `block` says are held of each at a time, in scratch
    that is longer by a gap: rows [1 + N, n], sums [6, n], votes and raw [2, n].
    """
    states = np.zeros(len(lengths), np.uint8)
    members = len(rows) - 1
    untrimmed = np.zeros(members, np.float32)
    flat, width = rows.reshape(-1), rows.shape[1]
    at = np.arange(1, 1 + members) * width
    for p in range(len(lengths)):
        for first in range(0, lengths[p], block):
            n = min(block, lengths[p] - first)
            total, low, high, up, down = sums[0, :n], sums[1, :n], sums[2, :n], votes[0, :n], votes[1, :n]
            for i in range(1 + members):
                if not load(places[p, i, 0], places[p, i, 1], kinds[p, i], starts[p] + first, raw[0], rows[i, :n]):
                    states[p] = UNREADABLE
                    break
            if states[p]:
                break
            base = rows[0, :n]
            begin(rule, total, low, high, up, down)
            for i in range(0, members, GROUP):
                count = min(GROUP, members - i)
                some = slice(i, i + count)
                fold_members(rule, base, flat, at[some], count, untrimmed[some], total, low, high, up, down)
            keeps, bad = finish(rule, total, low, high, up, down, need, np.float32(members))
            if bad:
                states[p] = NOT_FINITE
                break
            found.kept[p] += keeps
            values, written, origin = sums[3, :n], sums[4, :n], sums[5, :n]
            _add_effect(kinds[p, 0], base, total, values, written, origin, raw[1, :n], found.effects[p])
            for i in range(1, 1 + members):
                subtract(base, rows[i, :n])
            products = found.products[found.vectors[p]]
            for begins in range(0, n, SUMMED):
                some = min(SUMMED, n - begins)
                add_agreement(rows, begins, some, rule == STRICT, low, high, products, found.agreement)
    return states


class FusedInspection:
    """Statistics of pieces of tensors that the loops can read; several threads may ask it."""

    def __init__(self, pool: Pool, rule: Rule, sources: Sources) -> None:
        self._rule, self._members, self._sources = rule, len(pool.members), sources
        self._scratch = threading.local()

    def inspect(self, pieces: Sequence[Piece]) -> Found | None:
        """Return what was found in pieces; None where the numbers are wrong."""
        width = 1 + self._members
        if not hasattr(self._scratch, "rows"):
            self._scratch.block = max(2**12, min(BLOCK, HELD // width // SUMMED * SUMMED))
            length = self._scratch.block + GAP
            self._scratch.rows = np.empty((width, length), np.float32)
            self._scratch.sums = np.empty((6, length), np.float32)
            self._scratch.votes = np.empty((2, length), np.int32)
            self._scratch.raw = np.empty((2, length), np.uint16)
        rows, scratch = self._sources.rows(pieces), self._scratch
        found = Found.of(self._sources.vectors[rows], self._members)
        states = inspect_pieces(
            self._sources.places[rows],
            self._sources.kinds[rows],
            np.array([start for _, start, _ in pieces], np.int64),
            np.array([stop - start for _, start, stop in pieces], np.int64),
            self._rule.kind,
            self._rule.need,
            scratch.block,
            scratch.rows,
            scratch.sums,
            scratch.votes,
            scratch.raw,
            found,
        )
        return found if (states == FINE).all() else None
