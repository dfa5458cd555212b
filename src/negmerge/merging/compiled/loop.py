"""The merge of whole pieces in one call: read a block of every member, subtract, fold, finish, apply, measure.

Members are folded into running sums, so a job needs the same few blocks of memory whatever the size of the pool.
"""

from typing import NamedTuple

import numpy as np

from negmerge.checkpoints.pieces import ELEMENTS
from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.finishing import finish
from negmerge.merging.compiled.folding import GROUP, STRICT, begin, fold_members
from negmerge.merging.compiled.hashing import fetch_hashed, hash_piece
from negmerge.merging.compiled.measuring import EFFECTS, SAMPLE, add_agreement, add_octaves, add_rounding
from negmerge.merging.compiled.reading import (
    BFLOAT16,
    BLOCK,
    FETCHED,
    FLOAT16,
    FLOAT32,
    GAP,
    NOT_FINITE,
    UNREADABLE,
    load,
    read_raw,
    wide,
    widen,
)
from negmerge.merging.compiled.storing import apply, write

PITCH = BLOCK + GAP  # elements from one block in the scratch to the next


class Scratch(NamedTuple):
    """The memory of a thread that blocks go through."""

    floats: np.ndarray  # float32 [7, PITCH]
    wide: np.ndarray  # float32 [GROUP · PITCH]: members as float32, or
    narrow: np.ndarray  # uint16 [GROUP · PITCH]: as they are stored
    counts: np.ndarray  # int32 [2, PITCH]
    sample: np.ndarray  # float32 [1 + N, SAMPLE]

    @staticmethod
    def of(members: int) -> "Scratch":
        """Return scratch for a pool of `members`."""
        return Scratch(
            np.empty((7, PITCH), np.float32),
            np.empty(GROUP * PITCH, np.float32),
            np.empty(GROUP * PITCH, np.uint16),
            np.empty((2, PITCH), np.int32),
            np.empty((1 + members, SAMPLE), np.float32),
        )


class Found(NamedTuple):
    """What is found while pieces are merged."""

    kept: np.ndarray  # int64 [pieces]: elements that the rule keeps
    effects: np.ndarray  # float64 [pieces, EFFECTS]: see applying.effect_of
    differs: np.ndarray  # uint8 [N]: set where a member is found to differ from the base
    products: np.ndarray  # float64 [2, 1 + N, 1 + N]: of matrices and of vectors, and
    agreement: np.ndarray  # int64 [2 + N]: see add_agreement
    vectors: np.ndarray  # uint8 [pieces]: 1 for a piece of a tensor with fewer than two dimensions

    @staticmethod
    def of(vectors: np.ndarray, members: int) -> "Found":
        """Return what nothing has been added to."""
        return Found(
            np.zeros(len(vectors), np.int64),
            np.zeros((len(vectors), EFFECTS)),
            np.zeros(members, np.uint8),
            np.zeros((2, 1 + members, 1 + members)),
            np.zeros(2 + members, np.int64),
            vectors,
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
        places[k] = k * PITCH
        into, narrow = scratch.wide[k * PITCH : k * PITCH + n], scratch.narrow[k * PITCH : k * PITCH + n]
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
def put_halves(kind, base_kind, base, delta, values, out16, written, origin, effect, changed):  # type: ignore[no-untyped-def]
    """Round values into OUT, and make the effect that on what OUT holds; return how many overflow.

    `changed` is what effect[0] was before the values were applied in float32; written and origin are scratch.
    """
    bad = write(kind, base_kind, base, values, out16, written, origin)
    effect[0] = changed
    add_rounding(values, written, origin, effect)
    add_octaves(delta, origin, written, effect)
    return bad


@compiled
def merge_pieces(  # type: ignore[no-untyped-def]
    sources, kinds, starts, lengths, rule, need, cutoffs, operation, alpha, out_kinds, scratch, out, found, hashing
):  # fmt: skip
    """Merge pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. sources: [pieces, 1 + N, 2], an open file and where the tensor begins in it, or −1 and
    where it begins in memory; kinds: [pieces, 1 + N], how they are stored; starts, lengths: [pieces]; need: [N + 1],
    votes; cutoffs: [pieces, N], magnitudes to trim below; out_kinds: [pieces], how OUT is stored; out: uint8, the
    pieces one after the other, each as long as in float32; hashing: what is hashed on the way, in pieces of the hash
    that begin where a piece does. The digests of a piece that is not fine are of no use.
    """
    states = np.zeros(len(lengths), np.uint8)
    members = kinds.shape[1] - 1
    out32, out16 = out.view(np.float32), out.view(np.uint16)
    fetched = hashing.fetched
    fetched32, fetched16 = fetched.view(np.float32), fetched.view(np.uint16)
    hashed, sealed = len(hashing.inputs) > 0, len(hashing.output) > 0
    floats, sample = scratch.floats, scratch.sample
    places = np.empty(GROUP, np.int64)
    at, before = 0, 0
    for p in range(len(lengths)):
        kind, effect = out_kinds[p], found.effects[p]
        for first in range(0, lengths[p], BLOCK):
            n = min(BLOCK, lengths[p] - first)
            total, low, high = floats[1, :n], floats[2, :n], floats[3, :n]
            up, down = scratch.counts[0, :n], scratch.counts[1, :n]
            piece, inside = before + first // ELEMENTS, first % ELEMENTS
            if hashed and inside == 0:
                size = min(ELEMENTS, lengths[p] - first)
                if not fetch_hashed(sources[p], kinds[p], starts[p] + first, size, hashing, piece):
                    states[p] = UNREADABLE
                    break
            places_of, start = (hashing.held, inside) if hashed else (sources[p], starts[p] + first)
            base, whole = _base(places_of[0], kinds[p, 0], start, fetched, n, scratch)
            sample[0, : min(n, SAMPLE)] = base[:SAMPLE]
            begin(rule, total, low, high, up, down)
            for i in range(0, members, GROUP):
                count = min(GROUP, members - i)
                some = slice(1 + i, 1 + i + count)
                trims, rows, differs = cutoffs[p, i : i + count], sample[some], found.differs[i : i + count]
                way = _gather(places_of[some], kinds[p, some], start, fetched, n, scratch, places) if whole else 0
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
                written, origin = floats[5, :n], floats[6, :n]
                bad += put_halves(kind, kinds[p, 0], base, total, values, half, written, origin, effect, changed)
            if bad:
                states[p] = NOT_FINITE
                break
            products = found.products[found.vectors[p]]
            add_agreement(sample, 0, min(n, SAMPLE), rule == STRICT, low, high, products, found.agreement)
            found.kept[p] += keeps
            if sealed and (inside + n == ELEMENTS or first + n == lengths[p]):
                width = 4 if kind == FLOAT32 else 2
                where = 4 * at + width * (first - inside)
                hash_piece(out[where : where + width * (inside + n)], hashing.scratch, hashing.output[piece])
        at += lengths[p]
        before += -(-lengths[p] // ELEMENTS)
    return states
