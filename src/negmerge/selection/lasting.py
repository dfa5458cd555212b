"""α that lasts: among those that are free, the one at which the least comes back by itself or can be brought back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from negmerge.selection.curve import Curve

DEEPEST = 8  # times the smallest best α, beyond which nothing is tried
REACHED = 0.1  # position that an interval must reach
EQUAL = 0.05  # positions of one such step are not told apart
FIRST = 4  # candidates for the curve where the last one is still above 0


@dataclass(frozen=True)
class Position:
    """Where a model lies between Retrain (0) and the base (1) on one test, with the ends of the 95 % interval."""

    position: float
    low: float
    high: float

    @property
    def beyond(self) -> bool:
        """Whether all of the interval lies below −0.1: surely on the far side of Retrain."""
        return self.high < -REACHED


Positions = Mapping[str, Position]  # by test; a test that can't tell is left out
ComesBack = Callable[[float], Positions]


@dataclass(frozen=True)
class Tried:
    """An α whose model was tested: what selection saw of it, and its positions."""

    alpha: float
    scores: Mapping[str, float]
    positions: Positions = field(default_factory=dict)

    @property
    def distance(self) -> float | None:
        """How far from 0, from 0 to 1; None where no test can tell. See `distance_of`."""
        return distance_of(self.positions)

    @property
    def reached(self) -> bool:
        """Whether every test's interval reaches 0.1 from above, and none lies surely beyond Retrain."""
        return bool(self.positions) and all(one.low <= REACHED and not one.beyond for one in self.positions.values())


def distance_of(positions: Positions) -> float | None:
    """Return how far a model is from Retrain on the test on which it is furthest, from 0 to 1.

    A position above 0 is its own distance. One below 0 counts as 0, unless all of its interval lies below −0.1: that is
    surely beyond Retrain, and its distance is that to 0. None where no test can tell.

    >>> near, beyond = Position(-0.1, -0.2, 0.0), Position(-0.4, -0.5, -0.3)
    >>> distance_of({"a": near}), distance_of({"a": near, "b": beyond}), distance_of({})
    (0.0, 0.4, None)
    """
    if not positions:
        return None
    return min(1.0, max(_distance(one) for one in positions.values()))


def choose_lasting(
    curve: Curve, lowest: int, last: int, comes_back: ComesBack, candidates: int
) -> tuple[int, list[Tried]]:
    """Return the index of the lattice that lasts best, and every α that was tested, in order.

    `lowest` is the smallest index with the best value. Free are the indices from there to at most 8 times it, and to
    `last`, that hold the floor and the bound on retain loss, at a value no larger. The smallest and the deepest of them
    are tested; where the first lies above 0 and the second does not, those between, halving in the logarithm of α
    towards the crossing; else two more for the curve. Of distances (`distance_of`) in one step of 0.05 the smaller α
    wins. Where no test can tell, `lowest` is returned.
    """
    tried: dict[int, Tried] = {}

    def is_above(k: int) -> bool:
        if k not in tried:
            tried[k] = Tried(curve.alpha(k), curve.at(k), dict(comes_back(curve.alpha(k))))
        found = tried[k].positions.values()
        return any(one.position > 0.0 for one in found) and not any(one.beyond for one in found)

    if lowest > 0:
        deepest = _deepest_free(curve, lowest, min(last, DEEPEST * lowest))
        if is_above(lowest) and deepest > lowest:
            above, below = lowest, deepest
            crossing = not is_above(deepest)
            most = candidates if crossing else min(candidates, FIRST)
            while len(tried) < most and below - above > 1:
                middle = min(below - 1, max(above + 1, round(math.sqrt(above * below))))
                if is_above(middle):
                    above = middle
                else:
                    below = middle
    told = [k for k in sorted(tried) if tried[k].distance is not None]
    best = min(told, key=lambda k: (step_of(tried[k].distance or 0.0), k), default=lowest)
    return best, [tried[k] for k in sorted(tried)]


def step_of(distance: float) -> float:
    """Return a distance rounded up to whole steps of 0.05, in percent: what models are ranked by.

    >>> step_of(0.0), step_of(0.051), step_of(0.1)
    (0.0, 10.0, 10.0)
    """
    return round(100.0 * EQUAL * math.ceil(distance / EQUAL - 1e-9), 6)


def _deepest_free(curve: Curve, lowest: int, end: int) -> int:
    """Return the deepest index found that costs nothing: by doubling, and bisecting where that went too deep."""

    def is_free(k: int) -> bool:
        return curve.holds(k) and curve.holds_loss(k) and curve.value(k) <= curve.value(lowest)

    good, bad = lowest, end + 1
    tried = min(2 * lowest, end)
    while tried > good:
        if not is_free(tried):
            bad = tried
            break
        good, tried = tried, min(2 * tried, end)
    while bad - good > max(1, lowest // 4) and bad <= end:
        middle = (good + bad) // 2
        if is_free(middle):
            good = middle
        else:
            bad = middle
    return good


def _distance(one: Position) -> float:
    return one.position if one.position > 0.0 else -one.position if one.beyond else 0.0
