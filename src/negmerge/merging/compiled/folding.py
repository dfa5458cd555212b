"""Folding members into running sums, several in one pass where the rule is a simple one.

Members lie in one flat array, float32, or the bits of bfloat16 (uint16), each from a place of its own.

No fast-math: every sum runs in the order of the members, in float32, and gives the bits of the plain functions in
`merging.methods`.
"""

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.reading import wide

GROUP = 8  # members that are read before they are folded
SUM, STRICT, COUNT_ALL, COUNT_AGREEING, ELECT_MASS, ELECT_COUNT = 0, 1, 2, 3, 4, 5


@compiled
def _add_sum(base, member, total):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        total[j] += wide(member[j]) - base[j]


@compiled
def _add_sum_of_four(base, a, b, c, d, total):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        o = base[j]
        total[j] = (((total[j] + (wide(a[j]) - o)) + (wide(b[j]) - o)) + (wide(c[j]) - o)) + (wide(d[j]) - o)


@compiled
def _add_strict(base, member, total, low, high):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        d = wide(member[j]) - base[j]
        total[j] += d
        low[j] = d if d < low[j] else low[j]
        high[j] = d if d > high[j] else high[j]


@compiled
def _add_strict_of_four(base, a, b, c, d, total, low, high):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        o = base[j]
        p, q, r, s = wide(a[j]) - o, wide(b[j]) - o, wide(c[j]) - o, wide(d[j]) - o
        total[j] = (((total[j] + p) + q) + r) + s
        least, most = (p if p < q else q), (p if p > q else q)
        least, most = (r if r < least else least), (r if r > most else most)
        least, most = (s if s < least else least), (s if s > most else most)
        low[j] = least if least < low[j] else low[j]
        high[j] = most if most > high[j] else high[j]


@compiled
def _add_strict_of_eight(base, a, b, c, d, e, f, g, h, total, low, high):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        o = base[j]
        p, q, r, s = wide(a[j]) - o, wide(b[j]) - o, wide(c[j]) - o, wide(d[j]) - o
        t, u, v, w = wide(e[j]) - o, wide(f[j]) - o, wide(g[j]) - o, wide(h[j]) - o
        total[j] = (((((((total[j] + p) + q) + r) + s) + t) + u) + v) + w
        least, most = (p if p < q else q), (p if p > q else q)
        least, most = (r if r < least else least), (r if r > most else most)
        least, most = (s if s < least else least), (s if s > most else most)
        least, most = (t if t < least else least), (t if t > most else most)
        least, most = (u if u < least else least), (u if u > most else most)
        least, most = (v if v < least else least), (v if v > most else most)
        least, most = (w if w < least else least), (w if w > most else most)
        low[j] = least if least < low[j] else low[j]
        high[j] = most if most > high[j] else high[j]


@compiled
def _add_counts(base, member, total, up, down):  # type: ignore[no-untyped-def]
    for j in range(len(base)):
        d = wide(member[j]) - base[j]
        total[j] += d
        up[j] += np.int32(d > 0)
        down[j] += np.int32(d < 0)


@compiled
def _add_agreeing(base, member, positive, negative, up, down):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(len(base)):
        d = wide(member[j]) - base[j]
        # A NaN belongs to neither sign; `not` sends it to the negative sum, where it is found.
        positive[j] += d if d > 0 else zero
        negative[j] += zero if d > 0 else d
        up[j] += np.int32(d > 0)
        down[j] += np.int32(d < 0)


@compiled
def _add_trimmed(base, member, cutoff, total, positive, negative, up, down):  # type: ignore[no-untyped-def]
    zero = np.float32(0)
    for j in range(len(base)):
        d = wide(member[j]) - base[j]
        # A NaN is below no cutoff and belongs to neither sign: it stays in the sum, where it is found.
        t = zero if abs(d) < cutoff else d
        total[j] += t
        positive[j] += t if t > 0 else zero
        negative[j] += t if t < 0 else zero
        up[j] += np.int32(t > 0)
        down[j] += np.int32(t < 0)


@compiled
def begin(rule, total, low, high, up, down):  # type: ignore[no-untyped-def]
    """Set the running sums that a rule needs to those of no member."""
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
def fold_members(rule, base, flat, places, count, cutoffs, total, low, high, up, down):  # type: ignore[no-untyped-def]
    """Fold the task vectors of `count` members into the running sums, in their order.

    flat: float32, or uint16 of bfloat16; places: the first element of each member's block in it.
    """
    n = len(base)
    done = 0
    while count - done >= 4 and rule in (STRICT, SUM):
        at = places[done:]
        a, b = flat[at[0] : at[0] + n], flat[at[1] : at[1] + n]
        c, d = flat[at[2] : at[2] + n], flat[at[3] : at[3] + n]
        if rule == SUM:
            _add_sum_of_four(base, a, b, c, d, total)
            done += 4
        elif count - done >= 8:
            e, f = flat[at[4] : at[4] + n], flat[at[5] : at[5] + n]
            g, h = flat[at[6] : at[6] + n], flat[at[7] : at[7] + n]
            _add_strict_of_eight(base, a, b, c, d, e, f, g, h, total, low, high)
            done += 8
        else:
            _add_strict_of_four(base, a, b, c, d, total, low, high)
            done += 4
    for k in range(done, count):
        _fold(rule, base, flat[places[k] : places[k] + n], cutoffs[k], total, low, high, up, down)
