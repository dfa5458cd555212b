"""Folding members into running sums, four in one pass where the rule is a simple one.

No fast-math: every sum runs in the order of the members, in float32, and gives the bits of the plain functions in
`merging.methods`.
"""

import numpy as np

from negmerge.execution.compiling import compiled

GROUP = 4  # members that are folded in one pass over the running sums, where there are as many
SUM, STRICT, COUNT_ALL, COUNT_AGREEING, ELECT_MASS, ELECT_COUNT = 0, 1, 2, 3, 4, 5


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
def fold_members(rule, base, members, count, cutoffs, total, low, high, up, down):  # type: ignore[no-untyped-def]
    """Fold the task vectors of the first `count` members of a group into the running sums, in their order."""
    if count == GROUP and rule == STRICT:
        _add_strict_of_group(base, members, total, low, high)
    elif count == GROUP and rule == SUM:
        _add_sum_of_group(base, members, total)
    else:
        for k in range(count):
            _fold(rule, base, members[k, : len(base)], cutoffs[k], total, low, high, up, down)
