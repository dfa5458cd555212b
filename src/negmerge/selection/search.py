"""Searching a curve: every point, bisection where the value falls, Fibonacci search where it falls and then rises."""

import math

from negmerge.selection.curve import Curve


def try_grid(curve: Curve, first: int, last: int, stride: int) -> None:
    """Evaluate every `stride`-th point from `first` to `last`."""
    for k in range(first, last + 1, stride):
        curve.at(k)


def try_bisection(curve: Curve, first: int, last: int) -> None:
    """Evaluate what finds the best point of a value that falls until the floor breaks.

    The upper end doubles from `first` to at most `last` while the floor holds, and stops where the value is 0, or no
    longer falls. Before it has begun to fall, doubling goes on as long as the retain loss is bounded: curves of models
    that know their rows by heart are flat at first.
    """
    holds, breaks = 0, first
    while curve.holds(breaks):
        fell, begun = curve.value(breaks) < curve.value(holds), curve.value(breaks) < curve.value(0)
        holds = breaks
        if curve.value(holds) == 0.0 or holds == last:
            break
        if not fell and (begun or not curve.holds_loss(holds)):
            break
        breaks = min(2 * breaks, last)
    while breaks - holds > 1 and curve.value(holds) > 0.0:
        middle = (holds + breaks) // 2
        if curve.holds(middle):
            holds = middle
        else:
            breaks = middle
    _try_smaller(curve, holds)


def _try_smaller(curve: Curve, holds: int) -> None:
    """Find the smallest α whose value equals the one at `holds`: mostly the point before it says that there is none."""
    target = curve.value(holds)
    curve.value(max(0, holds - 1))
    above = max((k for k in curve.points if k <= holds and curve.value(k) > target), default=0)
    equal = min(k for k in curve.points if k <= holds and curve.value(k) <= target)
    while equal - above > 1:
        middle = (above + equal) // 2
        if curve.value(middle) > target:
            above = middle
        else:
            equal = middle


def try_deeper(curve: Curve, lowest: int, margin: float, last: int) -> int:
    """Return the deepest index from `lowest` up to `margin` · `lowest`, rounded up, that costs nothing.

    There all floors hold, the retain loss is bounded (see `Curve.holds_loss`), and the value is no larger. Where the
    full margin is not to be had, bisection finds how much of it is.
    """
    deepest = min(math.ceil(margin * lowest - 1e-9), last)

    def is_free(k: int) -> bool:
        return curve.holds(k) and curve.holds_loss(k) and curve.value(k) <= curve.value(lowest)

    taken = [k for k in curve.points if lowest < k <= deepest and not is_free(k)]
    good, bad = lowest, min([*taken, deepest + 1])
    tried = bad - 1  # mostly the whole margin
    while bad - good > 1:
        if is_free(tried):
            good = tried
        else:
            bad = tried
        tried = (good + bad) // 2
    return good


def try_fibonacci(curve: Curve, first: int, last: int) -> None:
    """Evaluate what finds the best point of a value that falls and then rises.

    Where `first` < `last`, the upper end doubles from `first` until the value has clearly risen: curves of models that
    know their rows by heart are flat at first. Inside an open interval of Fibonacci length F(m) two evaluations leave
    F(m − 1) points, of which one is known already: m − 2 evaluations decide among F(m) − 1 points, 6 among the 20
    above α = 0.

    Source: Kiefer, Sequential minimax search for a maximum, 1953.
    """
    ends = [0]
    if first < last:
        ends.append(first)
        while ends[-1] < last and not curve.has_risen(ends[-2], ends[-1]):
            ends.append(min(2 * ends[-1], last))
    best = min(range(len(ends)), key=lambda i: (curve.rank(ends[i]), i))
    ends.append(last + 1)
    _narrow(curve, ends[max(0, best - 1)], ends[best + 1])


def _narrow(curve: Curve, below: int, end: int) -> None:
    """Evaluate what finds the best index k with below < k < end. Of equals the left one wins."""
    shorter, length = 1, 2  # consecutive Fibonacci numbers
    while length < end - below:
        shorter, length = length, shorter + length

    def rank(k: int) -> tuple[int, float]:
        # The length is rounded up: what lies beyond the end counts as worse than all.
        return curve.rank(k) if k < end else (2, float(k))

    while length > 2:
        if rank(below + length - shorter) > rank(below + shorter):
            below += length - shorter
        shorter, length = length - shorter, shorter
    rank(below + 1)
