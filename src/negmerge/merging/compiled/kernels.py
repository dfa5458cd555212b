"""The fused loops: read a block of every member, subtract, count, sum, apply, all while it stays in cache.

Members are folded into running sums, four in one pass where the rule is a simple one, so a job needs the same few
blocks of memory whatever the size of the pool. No fast-math: every sum runs in the order of the members, in float32,
and gives the bits of the plain functions in `merging.methods`.
"""

from typing import Any

import numpy as np

from negmerge.execution.compiling import AVAILABLE, compiled

if AVAILABLE:
    from numba import types

BLOCK = 2**14  # elements: nine float32 blocks of this length fit the second-level cache
GROUP = 4  # members that are folded in one pass over the running sums, where there are as many
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
SUM, STRICT, COUNT_ALL, COUNT_AGREEING, ELECT_MASS, ELECT_COUNT = 0, 1, 2, 3, 4, 5
DELTA, SUBTRACT, ADD = 0, 1, 2
FINE, UNREADABLE, NOT_FINITE = 0, 1, 2

if AVAILABLE:
    _pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.intp, types.intp, types.int64))
    _memcpy: Any = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.intp))


@compiled
def _fetch(descriptor, offset, address, count):  # type: ignore[no-untyped-def]
    # Bytes of an open file, or (descriptor −1) of this process's memory at address `offset`, to `address`.
    if descriptor < 0:
        _memcpy(address, offset, count)
        return True
    done = 0
    while done < count:
        got = _pread(np.int32(descriptor), address + done, count - done, offset + done)
        if got <= 0:
            return False
        done += got
    return True


@compiled
def load(descriptor, offset, kind, first, raw, values):  # type: ignore[no-untyped-def]
    """Read elements of one checkpoint, from element `first` on, as float32 into `values`; False where they end."""
    count = len(values)
    if kind == FLOAT32:
        return _fetch(descriptor, offset + 4 * first, values.ctypes.data, 4 * count)
    if not _fetch(descriptor, offset + 2 * first, raw.ctypes.data, 2 * count):
        return False
    bits = values.view(np.uint32)
    if kind == BFLOAT16:
        for j in range(count):
            bits[j] = np.uint32(raw[j]) << np.uint32(16)
        return True
    scale = np.float32(2.0**112)  # moves the exponent of a half to that of a float; exact, denormals included
    for j in range(count):
        half = np.uint32(raw[j])
        bits[j] = (half & np.uint32(0x7FFF)) << np.uint32(13)
        values[j] *= scale
        if (half & np.uint32(0x7C00)) == np.uint32(0x7C00):
            values[j] = np.inf
        bits[j] |= (half & np.uint32(0x8000)) << np.uint32(16)
    return True


@compiled
def _differs(base, member):  # type: ignore[no-untyped-def]
    for j in range(len(base)):  # noqa: SIM110  (compiled loops have no generators)
        if base[j] != member[j]:
            return True
    return False


@compiled
def _add_sum(base, member, total):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        total[j] += member[j] - base[j]


@compiled
def _add_strict(base, member, total, low, high):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        d = member[j] - base[j]
        total[j] += d
        low[j] = d if d < low[j] else low[j]
        high[j] = d if d > high[j] else high[j]


@compiled
def _add_sum_of_group(base, group, total):  # type: ignore[no-untyped-def]
    a, b, c, d = group[0, : len(base)], group[1, : len(base)], group[2, : len(base)], group[3, : len(base)]
    for j in range(len(base)):
        origin = base[j]
        total[j] = (((total[j] + (a[j] - origin)) + (b[j] - origin)) + (c[j] - origin)) + (d[j] - origin)


@compiled
def _add_strict_of_group(base, group, total, low, high):  # type: ignore[no-untyped-def]
    a, b, c, d = group[0, : len(base)], group[1, : len(base)], group[2, : len(base)], group[3, : len(base)]
    for j in range(len(base)):
        origin = base[j]
        p, q, r, s = a[j] - origin, b[j] - origin, c[j] - origin, d[j] - origin
        total[j] = (((total[j] + p) + q) + r) + s
        least, most = (p if p < q else q), (p if p > q else q)
        least, most = (r if r < least else least), (r if r > most else most)
        least, most = (s if s < least else least), (s if s > most else most)
        low[j] = least if least < low[j] else low[j]
        high[j] = most if most > high[j] else high[j]


@compiled
def _add_counts(base, member, total, up, down):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        d = member[j] - base[j]
        total[j] += d
        up[j] += np.int32(d > 0)
        down[j] += np.int32(d < 0)


@compiled
def _add_agreeing(base, member, positive, negative, up, down):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(len(base)):
        d = member[j] - base[j]
        # A NaN belongs to neither sign; `not` sends it to the negative sum, where it is found.
        positive[j] += d if d > 0 else zero
        negative[j] += zero if d > 0 else d
        up[j] += np.int32(d > 0)
        down[j] += np.int32(d < 0)


@compiled
def _add_trimmed(base, member, cutoff, total, positive, negative, up, down):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(len(base)):
        d = member[j] - base[j]
        # A NaN is below no cutoff and belongs to neither sign: it stays in the sum, where it is found.
        t = zero if abs(d) < cutoff else d
        total[j] += t
        positive[j] += t if t > 0 else zero
        negative[j] += t if t < 0 else zero
        up[j] += np.int32(t > 0)
        down[j] += np.int32(t < 0)


@compiled
def _finish_sum(total, members):  # type: ignore[no-untyped-def]
    bad = 0
    for j in range(len(total)):
        bad += not (abs(total[j]) < np.inf)
        total[j] /= members
    return len(total), bad


@compiled
def _finish_strict(total, low, high, members):  # type: ignore[no-untyped-def]
    kept, bad = 0, 0
    zero = np.float32(0)
    for j in range(len(total)):
        bad += not (abs(total[j]) < np.inf)
        keep = (low[j] > 0) | (high[j] < 0)
        kept += keep
        mean = total[j] / members
        total[j] = mean if keep else zero
    return kept, bad


@compiled
def _finish_counts(total, up, down, need, members):  # type: ignore[no-untyped-def]
    kept, bad = 0, 0
    zero = np.float32(0)
    for j in range(len(total)):
        bad += not (abs(total[j]) < np.inf)
        enough = need[up[j] + down[j]]
        keep = (up[j] >= enough) != (down[j] >= enough)
        kept += keep
        mean = total[j] / members
        total[j] = mean if keep else zero
    return kept, bad


@compiled
def _finish_agreeing(positive, negative, up, down, need):  # type: ignore[no-untyped-def]
    kept, bad = 0, 0
    zero, one = np.float32(0), np.int32(1)
    for j in range(len(positive)):
        bad += not (positive[j] - negative[j] < np.inf)
        enough = need[up[j] + down[j]]
        rises, falls = up[j] >= enough, down[j] >= enough
        kept += rises != falls
        winner = positive[j] if rises else negative[j]
        voters = max(up[j] if rises else down[j], one)
        mean = winner / np.float32(voters)
        positive[j] = mean if rises != falls else zero
    return kept, bad


@compiled
def _finish_elected(total, positive, negative, up, down, by_count):  # type: ignore[no-untyped-def]
    kept, bad = 0, 0
    zero, one = np.float32(0), np.int32(1)
    for j in range(len(total)):
        bad += not (abs(total[j]) < np.inf) or not (positive[j] - negative[j] < np.inf)
        rises = up[j] > down[j] if by_count else total[j] > 0
        falls = down[j] > up[j] if by_count else total[j] < 0
        winner = positive[j] if rises else negative[j]
        voters = up[j] if rises else down[j]
        mean = winner / np.float32(max(voters, one))
        keep = (rises or falls) and voters > 0
        kept += keep
        total[j] = mean if keep else zero
    return kept, bad


@compiled
def _apply(base, delta, operation, alpha, out):  # type: ignore[no-untyped-def]
    bad = 0
    if operation == DELTA:
        out[:] = delta
        return bad
    for j in range(len(base)):
        step = delta[j] * alpha
        out[j] = base[j] + step if operation == ADD else base[j] - step
        bad += not (abs(out[j]) < np.inf)
    return bad


@compiled
def _begin(rule, total, low, high, up, down):  # type: ignore[no-untyped-def]
    total[:] = 0
    low[:] = np.inf if rule == STRICT else 0
    high[:] = -np.inf if rule == STRICT else 0
    if rule not in (SUM, STRICT):
        up[:] = 0
        down[:] = 0


@compiled
def _fold(rule, base, member, cutoff, total, low, high, up, down):  # type: ignore[no-untyped-def]
    if rule == STRICT:
        _add_strict(base, member, total, low, high)
    elif rule == SUM:
        _add_sum(base, member, total)
    elif rule == COUNT_ALL:
        _add_counts(base, member, total, up, down)
    elif rule == COUNT_AGREEING:
        _add_agreeing(base, member, total, low, up, down)
    else:
        _add_trimmed(base, member, cutoff, total, low, high, up, down)


@compiled
def _fold_members(rule, base, members, count, cutoffs, total, low, high, up, down):  # type: ignore[no-untyped-def]
    # The sums run in the order of the members either way.
    if count == GROUP and rule == STRICT:
        _add_strict_of_group(base, members, total, low, high)
    elif count == GROUP and rule == SUM:
        _add_sum_of_group(base, members, total)
    else:
        for k in range(count):
            _fold(rule, base, members[k, : len(base)], cutoffs[k], total, low, high, up, down)


@compiled
def _load_members(descriptors, offsets, kinds, begin, raw, base, members, differs):  # type: ignore[no-untyped-def]
    for k in range(len(descriptors)):
        member = members[k, : len(base)]
        if not load(descriptors[k], offsets[k], kinds[k], begin, raw, member):
            return False
        if not differs[k] and _differs(base, member):
            differs[k] = 1
    return True


@compiled
def _finish(rule, total, low, high, up, down, need, members):  # type: ignore[no-untyped-def]
    if rule == STRICT:
        return _finish_strict(total, low, high, members)
    if rule == SUM:
        return _finish_sum(total, members)
    if rule == COUNT_ALL:
        return _finish_counts(total, up, down, need, members)
    if rule == COUNT_AGREEING:
        return _finish_agreeing(total, low, up, down, need)
    return _finish_elected(total, low, high, up, down, rule == ELECT_COUNT)


@compiled
def merge_pieces(  # type: ignore[no-untyped-def]
    descriptors, offsets, kinds, starts, lengths, rule, need, cutoffs, operation, alpha, floats, group, counts, raw,
    differs, out, kept
):  # fmt: skip
    """Merge pieces of tensors, and return the state of each: fine, unreadable, or not finite.

    Checkpoint 0 is the base. descriptors, offsets, kinds: [pieces, 1 + N], where each tensor begins and how it is
    stored; starts, lengths: [pieces]; need: [N + 1], votes; cutoffs: [pieces, N], magnitudes to trim below; out:
    float32, all pieces one after the other; kept: [pieces]; differs: [N], set where a member is found to differ from
    the base; floats [4, BLOCK], group [GROUP, BLOCK], counts [2, BLOCK], raw [BLOCK] are scratch.
    """
    states = np.zeros(len(lengths), np.uint8)
    members = descriptors.shape[1] - 1
    at = 0
    for p in range(len(lengths)):
        kept[p] = 0
        for first in range(0, lengths[p], BLOCK):
            n = min(BLOCK, lengths[p] - first)
            base, total = floats[0, :n], floats[1, :n]
            low, high = floats[2, :n], floats[3, :n]
            up, down = counts[0, :n], counts[1, :n]
            begin = starts[p] + first
            whole = load(descriptors[p, 0], offsets[p, 0], kinds[p, 0], begin, raw, base)
            _begin(rule, total, low, high, up, down)
            for i in range(0, members, GROUP):
                some = slice(1 + i, 1 + min(i + GROUP, members))
                whole = whole and _load_members(
                    descriptors[p, some],
                    offsets[p, some],
                    kinds[p, some],
                    begin,
                    raw,
                    base,
                    group,
                    differs[i : i + GROUP],
                )
                if not whole:
                    break
                count = min(GROUP, members - i)
                _fold_members(rule, base, group, count, cutoffs[p, i : i + GROUP], total, low, high, up, down)
            if not whole:
                states[p] = UNREADABLE
                break
            keeps, bad = _finish(rule, total, low, high, up, down, need, np.float32(members))
            bad += _apply(base, total, operation, alpha, out[at + first : at + first + n])
            if bad:
                states[p] = NOT_FINITE
                break
            kept[p] += keeps
        at += lengths[p]
    return states
