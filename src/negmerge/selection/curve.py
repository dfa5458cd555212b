"""The curve of one merged vector over the lattice of α: each point evaluated once, and ranked by an objective."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from negmerge.errors import InputError

Scores = Mapping[str, float]
Evaluate = Callable[[float], Scores]
Rank = tuple[int, float]

TOLERANCE = 1e-9  # the floor is a product of two floats; equality must count as holding
NOISE = 0.5  # percentage points by which a valley may rise on its way down: attack and samples are not exact


@dataclass(frozen=True)
class Objective:
    """What the best α is: the one with the smallest score `key`, among those above the floor if `floored`.

    `falls` says that the score is known to fall with α until the floor breaks; otherwise it falls, then rises.
    """

    key: str
    floored: bool
    falls: bool
    without: str = ""


OBJECTIVES = {
    "retain-floor": Objective("forget", floored=True, falls=True),
    "match-reference": Objective(
        "gap", floored=False, falls=False, without="match-reference needs a reference, and its average gap as 'gap'"
    ),
    "match-holdout": Objective(
        "holdout", floored=True, falls=False, without="match-holdout needs validation rows, and the distance to them"
    ),
}


def rank_models(scores: Scores, objective: str, *, floor: float) -> tuple[float, ...]:
    """Return what orders different models by an objective, the smallest first.

    Models that hold the floor (an absolute retain accuracy, in percent, heeded by the objectives that have one) come
    first: the smallest score of the objective before others, then the highest retain accuracy. Behind them are those
    that break it, by retain accuracy.

    >>> rank_models({"forget": 20.0, "retain": 90.0}, "retain-floor", floor=85.5)
    (0.0, 20.0, -90.0)
    """
    aim = OBJECTIVES[objective]
    if not aim.floored or scores["retain"] >= floor - TOLERANCE:
        return 0.0, scores[aim.key], -scores["retain"]
    return 1.0, -scores["retain"], scores[aim.key]


@dataclass
class Curve:
    """Evaluations on the lattice, each made once; index k stands for α = k · step."""

    evaluate: Evaluate
    step: float
    objective: Objective
    floor_share: float
    points: dict[int, dict[str, float]] = field(default_factory=dict)

    def alpha(self, k: int) -> float:
        """Return the α of index k."""
        return round(k * self.step, 10)

    def at(self, k: int) -> dict[str, float]:
        """Return the scores of index k. Raises InputError for one that is missing or no percentage."""
        if k not in self.points:
            scores = dict(self.evaluate(self.alpha(k)))
            for key in ("forget", "retain", self.objective.key):
                if key not in scores or not 0.0 <= scores[key] <= 100.0:
                    why = f" ({self.objective.without})" if key == self.objective.key and self.objective.without else ""
                    raise InputError(
                        f"evaluate({self.alpha(k)}) must return {key!r} as a percentage from 0 to 100{why}, "
                        f"got {scores.get(key, 'nothing')}"
                    )
            self.points[k] = scores
        return self.points[k]

    @property
    def floor(self) -> float | None:
        """The absolute retain accuracy that must hold, in percent; None where the objective knows no floor."""
        return self.floor_share * self.at(0)["retain"] if self.objective.floored else None

    def holds(self, k: int) -> bool:
        """Whether retain accuracy is above the floor."""
        floor = self.floor
        return floor is None or self.at(k)["retain"] >= floor - TOLERANCE

    def value(self, k: int) -> float:
        """Return the score that is to be small."""
        return self.at(k)[self.objective.key]

    def rank(self, k: int) -> Rank:
        """Return what is to be smallest: the value where the floor holds; below the floor, α itself.

        So a value that falls and then rises stays one that falls and then rises, whatever the floor cuts off.
        """
        return (0, self.value(k)) if self.holds(k) else (1, float(k))

    def has_risen(self, a: int, b: int) -> bool:
        """Whether index b is worse than a by more than noise, or below the floor."""
        return not self.holds(b) or self.value(b) > self.value(a) + NOISE

    def best(self) -> int:
        """Return the best evaluated index; the smallest among equals. α = 0 always holds the floor."""
        return min(self.points, key=lambda k: (self.rank(k), k))

    def is_monotone(self) -> bool:
        """Whether the evaluated points agree with what bisection relies on.

        That is: the floor, once broken, stays broken, and while it holds the value does not rise.
        """
        known = sorted(self.points)
        holding = [k for k in known if self.holds(k)]
        unbroken = holding == known[: len(holding)]
        falling = all(self.value(a) >= self.value(b) for a, b in itertools.pairwise(holding))
        return unbroken and falling

    def is_unimodal(self, last: int) -> bool:
        """Whether the evaluated points prove the best one, if the curve falls to its best points and then rises.

        The values must fall to the best and rise after it, up to noise of 0.5 percentage points. Where several
        evaluated points are best, a flat stretch may also lie on the slope: it is the bottom only if all of it is
        known, and the point after it, up to `last`.
        """
        known = sorted(self.points)
        best = self.rank(self.best())
        low = [k for k in known if self.rank(k) == best]
        holding = [k for k in known if self.holds(k)]
        before = itertools.pairwise(self.value(k) for k in holding if k <= low[0])
        after = itertools.pairwise(self.value(k) for k in holding if k >= low[0])
        falling = all(a >= b - NOISE for a, b in before) and all(a <= b + NOISE for a, b in after)
        known_whole = low == list(range(low[0], low[-1] + 1)) and (low[-1] == last or low[-1] + 1 in self.points)
        return holding == known[: len(holding)] and falling and (len(low) == 1 or known_whole)
