"""The merge of whole pieces in one call: read a block of every member, subtract, fold, finish, apply, measure.

Members are folded into running sums, so a job needs the same few blocks of memory whatever the size of the pool.
"""

from typing import NamedTuple

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.finishing import finish
from negmerge.merging.compiled.folding import GROUP, STRICT, begin, fold_members
from negmerge.merging.compiled.measuring import SAMPLE, add_agreement, add_rounding
from negmerge.merging.compiled.reading import (
    BFLOAT16,
    BLOCK,
    FLOAT16,
    FLOAT32,
    NOT_FINITE,
    UNREADABLE,
    load,
    read_raw,
    wide,
    widen,
)
from negmerge.merging.compiled.storing import apply, write

FETCHED = -2


class Scratch(NamedTuple):
    """The memory of a thread that blocks go through."""

    floats: np.ndarray  # float32 [7, BLOCK]
    wide: np.ndarray  # float32 [GROUP · BLOCK]: members as float32, or
    narrow: np.ndarray  # uint16 [GROUP · BLOCK]: as they are stored
    counts: np.ndarray  # int32 [2, BLOCK]
    sample: np.ndarray  # float32 [1 + N, SAMPLE]

    @staticmethod
    def of(members: int) -> "Scratch":
        """Return scratch for a pool of `members`."""
        return Scratch(
            np.empty((7, BLOCK), np.float32),
            np.empty(GROUP * BLOCK, np.float32),
            np.empty(GROUP * BLOCK, np.uint16),
            np.empty((2, BLOCK), np.int32),
            np.empty((1 + members, SAMPLE), np.float32),
        )


class Found(NamedTuple):
    """What is found while pieces are merged."""

    kept: np.ndarray  # int64 [pieces]: elements that the rule keeps
    effects: np.ndarray  # float64 [pieces, 4]: see storing.apply
    differs: np.ndarray  # uint8 [N]: set where a member is found to differ from the base
    products: np.ndarray  # float64 [1 + N, 1 + N] and
    agreement: np.ndarray  # int64 [2 + N]: see add_agreement

    @staticmethod
    def of(pieces: int, members: int) -> "Found":
        """Return what nothing has been added to."""
        return Found(
            np.zeros(pieces, np.int64),
            np.zeros((pieces, 4)),
            np.zeros(members, np.uint8),
            np.zeros((1 + members, 1 + members)),
            np.zeros(2 + members, np.int64),
        )


@compiled
def _note(base, flat, places, count, sample, differs):  # type: ignore[no-untyped-def]
    """Note which members differ from the base, and keep the first elements of their task vectors."""
    n = len(base)
    for k in range(count):
        member = flat[places[k] : places[k] + n]
        if not differs[k]:
            for j in range(n):
                if wide(member[j]) != base[j]:
                    differs[k] = 1
                    break
        for j in range(min(n, SAMPLE)):
            sample[k, j] = wide(member[j]) - base[j]


@compiled
def _base(source, kind, start, fetched, n, scratch):  # type: ignore[no-untyped-def]
    """Return the base's block as float32, and whether it could be read."""
    base = scratch.floats[0, :n]
    if source[0] == FETCHED:
        if kind == FLOAT32:
            first = source[1] // 4 + start
            return fetched.view(np.float32)[first : first + n], True
        first = source[1] // 2 + start
        widen(kind, fetched.view(np.uint16)[first : first + n], base)
        return base, True
    return base, load(source[0], source[1], kind, start, scratch.narrow, base)


@compiled
def _gather(sources, kinds, start, fetched, n, scratch, places):  # type: ignore[no-untyped-def]
    """Bring a group's blocks to where they can be folded, and set their `places` there.

    Returned is where: 0 nowhere, a file ends before; 1 scratch.wide; 2 scratch.narrow, as bfloat16; 3 the fetched
    bytes, as float32; 4 the fetched bytes, as bfloat16.
    """
    count = len(kinds)
    same = True
    for k in range(1, count):
        same = same and kinds[k] == kinds[0] and (sources[k, 0] == FETCHED) == (sources[0, 0] == FETCHED)
    if same and sources[0, 0] == FETCHED and kinds[0] != FLOAT16:
        width = 4 if kinds[0] == FLOAT32 else 2
        for k in range(count):
            places[k] = sources[k, 1] // width + start
        return 3 if kinds[0] == FLOAT32 else 4
    direct = same and kinds[0] == BFLOAT16
    for k in range(count):
        places[k] = k * BLOCK
        into, narrow = scratch.wide[k * BLOCK : k * BLOCK + n], scratch.narrow[k * BLOCK : k * BLOCK + n]
        if sources[k, 0] != FETCHED:
            if direct:
                whole = read_raw(sources[k, 0], sources[k, 1], start, narrow)
            else:
                whole = load(sources[k, 0], sources[k, 1], kinds[k], start, narrow, into)
            if not whole:
                return 0
        elif kinds[k] == FLOAT32:
            first = sources[k, 1] // 4 + start
            into[:] = fetched.view(np.float32)[first : first + n]
        else:
            first = sources[k, 1] // 2 + start
            widen(kinds[k], fetched.view(np.uint16)[first : first + n], into)
    return 2 if direct else 1


@compiled
def _fold_group(rule, base, flat, places, count, cutoffs, total, low, high, up, down, sample, differs):  # type: ignore[no-untyped-def]
    _note(base, flat, places, count, sample, differs)
    fold_members(rule, base, flat, places, count, cutoffs, total, low, high, up, down)


@compiled
def _put(kind, base_kind, base, values, out16, written, origin, effect, changed):  # type: ignore[no-untyped-def]
    """Round values into OUT; the effect is that on what OUT holds. Return how many overflow."""
    bad = write(kind, base_kind, base, values, out16, written, origin)
    effect[0] = changed
    add_rounding(values, written, origin, effect)
    return bad


@compiled
def merge_pieces(  # type: ignore[no-untyped-def]
    sources, kinds, starts, lengths, fetched, rule, need, cutoffs, operation, alpha, out_kinds, scratch, out, found
):  # fmt: skip
    """Merge pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. sources: [pieces, 1 + N, 2], an open file and where the tensor begins in it, −1 and where
    it begins in memory, or FETCHED and where the piece begins in `fetched` (uint8); kinds: [pieces, 1 + N], how they
    are stored; starts, lengths: [pieces]; need: [N + 1], votes; cutoffs: [pieces, N], magnitudes to trim below;
    out_kinds: [pieces], how OUT is stored; out: uint8, the pieces one after the other, each as long as in float32.
    """
    states = np.zeros(len(lengths), np.uint8)
    members = kinds.shape[1] - 1
    out32, out16 = out.view(np.float32), out.view(np.uint16)
    fetched32, fetched16 = fetched.view(np.float32), fetched.view(np.uint16)
    floats, sample = scratch.floats, scratch.sample
    places = np.empty(GROUP, np.int64)
    at = 0
    for p in range(len(lengths)):
        kind, effect = out_kinds[p], found.effects[p]
        for first in range(0, lengths[p], BLOCK):
            n = min(BLOCK, lengths[p] - first)
            total, low, high = floats[1, :n], floats[2, :n], floats[3, :n]
            up, down = scratch.counts[0, :n], scratch.counts[1, :n]
            start = starts[p] + first
            base, whole = _base(sources[p, 0], kinds[p, 0], start, fetched, n, scratch)
            sample[0, : min(n, SAMPLE)] = base[:SAMPLE]
            begin(rule, total, low, high, up, down)
            for i in range(0, members, GROUP):
                count = min(GROUP, members - i)
                some = slice(1 + i, 1 + i + count)
                trims, rows, differs = cutoffs[p, i : i + count], sample[some], found.differs[i : i + count]
                way = _gather(sources[p, some], kinds[p, some], start, fetched, n, scratch, places) if whole else 0
                if way == 0:
                    whole = False
                    break
                if way in (1, 3):
                    flat = scratch.wide if way == 1 else fetched32
                    _fold_group(rule, base, flat, places, count, trims, total, low, high, up, down, rows, differs)
                else:
                    bits = scratch.narrow if way == 2 else fetched16
                    _fold_group(rule, base, bits, places, count, trims, total, low, high, up, down, rows, differs)
            if not whole:
                states[p] = UNREADABLE
                break
            keeps, bad = finish(rule, total, low, high, up, down, need, np.float32(members))
            changed, place = effect[0], at + first
            values = out32[place : place + n] if kind == FLOAT32 else floats[4, :n]
            bad += apply(base, total, operation, alpha, values, effect)
            if kind != FLOAT32:
                half = out16[2 * at + first : 2 * at + first + n]  # a piece begins where it would in float32
                bad += _put(kind, kinds[p, 0], base, values, half, floats[5, :n], floats[6, :n], effect, changed)
            if bad:
                states[p] = NOT_FINITE
                break
            add_agreement(sample, 0, min(n, SAMPLE), rule == STRICT, low, high, found.products, found.agreement)
            found.kept[p] += keeps
        at += lengths[p]
    return states
