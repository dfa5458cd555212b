"""The merge of whole pieces in one call: read a block of every member, subtract, fold, finish, apply, measure.

Members are folded into running sums, so a job needs the same few blocks of memory whatever the size of the pool.
"""

from typing import NamedTuple

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.finishing import finish
from negmerge.merging.compiled.folding import GROUP, begin, fold_members
from negmerge.merging.compiled.measuring import EFFECTS, SAMPLE, add_agreement, add_effect, add_octaves
from negmerge.merging.compiled.reading import BLOCK, FLOAT32, NOT_FINITE, UNREADABLE, load
from negmerge.merging.compiled.storing import DELTA, apply, write


class Scratch(NamedTuple):
    """The memory of a thread that blocks go through."""

    floats: np.ndarray  # float32 [7, BLOCK]
    group: np.ndarray  # float32 [GROUP, BLOCK]
    counts: np.ndarray  # int32 [2, BLOCK]
    raw: np.ndarray  # uint16 [BLOCK]
    sample: np.ndarray  # float32 [1 + N, SAMPLE]

    @staticmethod
    def of(members: int) -> "Scratch":
        """Return scratch for a pool of `members`."""
        return Scratch(
            np.empty((7, BLOCK), np.float32),
            np.empty((GROUP, BLOCK), np.float32),
            np.empty((2, BLOCK), np.int32),
            np.empty(BLOCK, np.uint16),
            np.empty((1 + members, SAMPLE), np.float32),
        )


class Found(NamedTuple):
    """What is found while pieces are merged."""

    kept: np.ndarray  # int64 [pieces]: elements that the rule keeps
    effects: np.ndarray  # float64 [pieces, EFFECTS]: see add_effect
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
def _differs(base, member):  # type: ignore[no-untyped-def]
    for j in range(len(base)):  # noqa: SIM110  (compiled loops have no generators)
        if base[j] != member[j]:
            return True
    return False


@compiled
def _load_members(descriptors, offsets, kinds, start, raw, base, members, sample, differs):  # type: ignore[no-untyped-def]
    some = min(len(base), SAMPLE)
    for k in range(len(descriptors)):
        member = members[k, : len(base)]
        if not load(descriptors[k], offsets[k], kinds[k], start, raw, member):
            return False
        if not differs[k] and _differs(base, member):
            differs[k] = 1
        for j in range(some):
            sample[k, j] = member[j] - base[j]
    return True


@compiled
def merge_pieces(  # type: ignore[no-untyped-def]
    descriptors, offsets, kinds, starts, lengths, rule, need, cutoffs, operation, alpha, out_kinds, scratch, out, found
):  # fmt: skip
    """Merge pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. descriptors, offsets, kinds: [pieces, 1 + N], where each tensor begins and how it is
    stored; starts, lengths: [pieces]; need: [N + 1], votes; cutoffs: [pieces, N], magnitudes to trim below;
    out_kinds: [pieces], how OUT is stored; out: uint8, the pieces one after the other, each as long as in float32.
    """
    states = np.zeros(len(lengths), np.uint8)
    members = descriptors.shape[1] - 1
    out32, out16 = out.view(np.float32), out.view(np.uint16)
    floats, sample = scratch.floats, scratch.sample
    at = 0
    for p in range(len(lengths)):
        kind = out_kinds[p]
        for first in range(0, lengths[p], BLOCK):
            n = min(BLOCK, lengths[p] - first)
            base, total, low, high = floats[0, :n], floats[1, :n], floats[2, :n], floats[3, :n]
            values, written, origin = floats[4, :n], floats[5, :n], floats[6, :n]
            up, down = scratch.counts[0, :n], scratch.counts[1, :n]
            start = starts[p] + first
            whole = load(descriptors[p, 0], offsets[p, 0], kinds[p, 0], start, scratch.raw, base)
            sample[0, : min(n, SAMPLE)] = base[:SAMPLE]
            begin(rule, total, low, high, up, down)
            for i in range(0, members, GROUP):
                some = slice(1 + i, 1 + min(i + GROUP, members))
                whole = whole and _load_members(
                    descriptors[p, some],
                    offsets[p, some],
                    kinds[p, some],
                    start,
                    scratch.raw,
                    base,
                    scratch.group,
                    sample[some],
                    found.differs[i : i + GROUP],
                )
                if not whole:
                    break
                count = min(GROUP, members - i)
                fold_members(rule, base, scratch.group, count, cutoffs[p, i : i + GROUP], total, low, high, up, down)
            if not whole:
                states[p] = UNREADABLE
                break
            keeps, bad = finish(rule, total, low, high, up, down, need, np.float32(members))
            place = at + first
            if kind == FLOAT32:
                values = out32[place : place + n]
            bad += apply(base, total, operation, alpha, values)
            if operation != DELTA:
                half = 2 * at + first  # a piece begins where it would in float32
                if kind == FLOAT32:
                    add_effect(base, total, values, values, base, found.effects[p])
                else:
                    bad += write(kind, kinds[p, 0], base, values, out16[half : half + n], written, origin)
                    add_effect(base, total, values, written, origin, found.effects[p])
                    add_octaves(total, origin, written, found.effects[p])
            if bad:
                states[p] = NOT_FINITE
                break
            products = found.products[found.vectors[p]]
            add_agreement(sample[:, : min(n, SAMPLE)], low, high, products, found.agreement)
            found.kept[p] += keeps
        at += lengths[p]
    return states
