"""The curve of one merged vector over the lattice of α: each point evaluated once, and ranked by an objective."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from negmerge.errors import InputError

Scores = Mapping[str, float]
Evaluate = Callable[[float], Scores]
Rank = tuple[int, float]

TOLERANCE = 1e-9  # the floor is a product of two floats; equality must count as holding
NOISE = 0.5  # percentage points by which a valley may rise on its way down: attack and samples are not exact
LASTING = "lasting"  # objective, and its score: how far what comes back is from what comes back of Retrain, in percent
HELD_OUT = "validation_forget"  # accuracy on held-out rows of the kind that is forgotten
LOSS = "retain_loss"
LOSS_NATS, LOSS_SHARE = 0.05, 0.1  # what the margin may add to the base's retain loss: the larger of the two


@dataclass(frozen=True)
class Objective:
    """What the best α is: the one with the smallest value, among those above the floor if `floored`.

    The value is the largest of the scores `keys` that are there; the first always is. `falls` says that it is known to
    fall with α until the floor breaks, and that there is nothing left to forget where it is 0, or small enough to count
    as 0; otherwise it falls, then rises.
    """

    keys: tuple[str, ...]
    floored: bool
    falls: bool
    without: str = ""

    def value(self, scores: Scores, gone: float = 0.0) -> float:
        """Return the score that is to be small, in percent; 0 where it falls with α and is at most `gone`."""
        value = max(scores[key] for key in self.keys if key in scores)
        return 0.0 if self.falls and value <= gone else value


OBJECTIVES = {
    "retain-floor": Objective(("forget", HELD_OUT), floored=True, falls=True),
    "match-reference": Objective(
        ("gap",), floored=False, falls=False, without="match-reference needs a reference, and its average gap as 'gap'"
    ),
    "match-holdout": Objective(
        ("holdout",), floored=True, falls=False, without="match-holdout needs validation rows, and the distance to them"
    ),
    LASTING: Objective((LASTING,), floored=True, falls=False),
}


def floors_of(base: Scores, objective: str, floor: float, floor_on: Sequence[str]) -> dict[str, float]:
    """Return the accuracies that must hold, in percent, by score: `floor` times those of the base.

    Empty where the objective knows no floor; a score of `floor_on` that nobody measures is left out.

    >>> floors_of({"forget": 90.0, "retain": 80.0}, "retain-floor", 0.95, ("retain", "validation"))
    {'retain': 76.0}
    """
    return {key: floor * base[key] for key in floor_on if key in base} if OBJECTIVES[objective].floored else {}


def holds_floors(scores: Scores, floors: Mapping[str, float]) -> bool:
    """Whether every accuracy is at or above its floor."""
    return all(scores[key] >= floor - TOLERANCE for key, floor in floors.items())


def chosen_point(row: Mapping[str, Any]) -> Mapping[str, float]:
    """Return the point of a row's curve, as results have it, that lies at its α."""
    found: Mapping[str, float] = next(point for point in row["curve"] if point["alpha"] == row["alpha"])
    return found


def rank_models(scores: Scores, objective: str, *, floors: Mapping[str, float], gone: float = 0.0) -> tuple[float, ...]:
    """Return what orders different models by an objective, the smallest first.

    Models that hold the floors (see `floors_of`) come first: the smallest value of the objective before others, then
    the highest retain accuracy. Behind them are those that break one, by retain accuracy. Values of retain-floor up to
    `gone` are equal.

    >>> rank_models({"forget": 20.0, "retain": 90.0}, "retain-floor", floors={"retain": 85.5})
    (0.0, 20.0, -90.0)
    >>> rank_models({"forget": 0.2, "retain": 90.0}, "retain-floor", floors={"retain": 85.5}, gone=1.0)
    (0.0, 0.0, -90.0)
    """
    value = OBJECTIVES[objective].value(scores, gone)
    if holds_floors(scores, floors):
        return 0.0, value, -scores["retain"]
    return 1.0, -scores["retain"], value


@dataclass
class Curve:
    """Evaluations on the lattice, each made once; index k stands for α = k · step."""

    evaluate: Evaluate
    step: float
    name: str
    floor_share: float
    floor_on: tuple[str, ...] = ("retain",)
    gone: float = 0.0
    points: dict[int, dict[str, float]] = field(default_factory=dict)

    @property
    def objective(self) -> Objective:
        """What the best α is."""
        return OBJECTIVES[self.name]

    def alpha(self, k: int) -> float:
        """Return the α of index k."""
        return round(k * self.step, 10)

    def at(self, k: int) -> dict[str, float]:
        """Return the scores of index k. Raises InputError for one that is missing or no percentage."""
        if k not in self.points:
            scores = dict(self.evaluate(self.alpha(k)))
            known = self.points.get(0, scores)
            optional = [key for key in (*self.objective.keys, *self.floor_on) if key in known]
            for key in dict.fromkeys(("forget", "retain", self.objective.keys[0], *optional)):
                if not isinstance(scores.get(key), int | float) or not 0.0 <= scores[key] <= 100.0:
                    without = self.objective.without if key == self.objective.keys[0] else ""
                    raise InputError(
                        f"evaluate({self.alpha(k)}) must return {key!r} as a percentage from 0 to 100"
                        f"{f' ({without})' if without else ''}, got {scores.get(key, 'nothing')}"
                    )
            self.points[k] = scores
        return self.points[k]

    @property
    def floors(self) -> dict[str, float]:
        """The accuracies that must hold, in percent, by score; empty where the objective knows no floor."""
        return floors_of(self.at(0), self.name, self.floor_share, self.floor_on)

    @property
    def floor(self) -> float | None:
        """The absolute retain accuracy that must hold, in percent; None where the objective knows no floor."""
        return self.floors.get("retain")

    def holds(self, k: int) -> bool:
        """Whether all accuracies are above their floors."""
        return holds_floors(self.at(k), self.floors)

    def holds_loss(self, k: int) -> bool:
        """Whether the retain loss is at most the base's + max(0.05 nat, 10 % of it); true where nobody measures it."""
        bound = self.at(0).get(LOSS)
        if bound is None or self.at(k).get(LOSS) is None:
            return True
        return self.at(k)[LOSS] <= bound + max(LOSS_NATS, LOSS_SHARE * abs(bound)) + TOLERANCE

    def value(self, k: int) -> float:
        """Return the score that is to be small; 0 where nothing is left to forget."""
        return self.objective.value(self.at(k), self.gone)

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
