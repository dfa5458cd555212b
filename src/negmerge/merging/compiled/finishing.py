"""From running sums to the merged vector: the mean where the rule keeps an element, else 0."""

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.folding import COUNT_AGREEING, COUNT_ALL, ELECT_COUNT, STRICT, SUM


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
def finish(rule, total, low, high, up, down, need, members):  # type: ignore[no-untyped-def]
    """Turn running sums into the merged vector, in `total`; return how many elements are kept, and not finite."""
    if rule == STRICT:
        return _finish_strict(total, low, high, members)
    if rule == SUM:
        return _finish_sum(total, members)
    if rule == COUNT_ALL:
        return _finish_counts(total, up, down, need, members)
    if rule == COUNT_AGREEING:
        return _finish_agreeing(total, low, up, down, need)
    return _finish_elected(total, low, high, up, down, rule == ELECT_COUNT)
