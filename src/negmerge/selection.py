"""Choosing α, the scale of the negation: objectives, and the search for the best point of a lattice.

Accuracies are percentages. α runs over the lattice k · step (0.05 in the paper); α = 0 is the base.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from negmerge.errors import InputError

Scores = Mapping[str, float]
Evaluate = Callable[[float], Scores]
Search = Literal["bracket", "grid"]

OBJECTIVES = ("retain-floor",)
TOLERANCE = 1e-9  # the floor is a product of two floats; equality must count as holding
BRACKET_LIMIT = 64.0
FALLBACK_POINTS = 80


@dataclass(frozen=True)
class Point:
    """One evaluated α and what was measured there."""

    alpha: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Selection:
    """The chosen α with everything that led to it.

    `floor` is the absolute retain accuracy that must hold, in percent; `open_end` says that it still held at the
    largest α tried, where something of the forget set was still recognised; `note` says what the reader must know.
    """

    alpha: float
    scores: dict[str, float]
    floor: float
    curve: tuple[Point, ...]
    open_end: bool = False
    note: str = ""


@dataclass
class _Curve:
    """Evaluations on the lattice, each made once; index k stands for α = k · step."""

    evaluate: Evaluate
    step: float
    floor_share: float
    points: dict[int, dict[str, float]] = field(default_factory=dict)

    def alpha(self, k: int) -> float:
        return round(k * self.step, 10)

    def at(self, k: int) -> dict[str, float]:
        if k not in self.points:
            scores = dict(self.evaluate(self.alpha(k)))
            for key in ("forget", "retain"):
                if key not in scores or not 0.0 <= scores[key] <= 100.0:
                    raise InputError(
                        f"evaluate({self.alpha(k)}) must return {key!r} as a percentage from 0 to 100, "
                        f"got {scores.get(key, 'nothing')}"
                    )
            self.points[k] = scores
        return self.points[k]

    @property
    def floor(self) -> float:
        return self.floor_share * self.at(0)["retain"]

    def holds(self, k: int) -> bool:
        return self.at(k)["retain"] >= self.floor - TOLERANCE

    def forget(self, k: int) -> float:
        return self.at(k)["forget"]

    def best(self) -> int:
        return min((k for k in self.points if self.holds(k)), key=lambda k: (self.forget(k), k))

    def is_monotone(self) -> bool:
        """Whether the evaluated points agree with what the bracket search relies on.

        That is: the floor, once broken, stays broken, and while it holds forget accuracy does not rise.
        """
        known = sorted(self.points)
        holding = [k for k in known if self.holds(k)]
        unbroken = holding == known[: len(holding)]
        falling = all(self.forget(a) >= self.forget(b) for a, b in itertools.pairwise(holding))
        return unbroken and falling


def choose_alpha(
    evaluate: Evaluate,
    objective: str = "retain-floor",
    *,
    floor: float = 0.95,
    search: Search = "bracket",
    step: float = 0.05,
    max_alpha: float | None = None,
) -> Selection:
    """Choose the scale α of a negation from what `evaluate` measures.

    retain-floor: argmin over α of forget(α) subject to retain(α) ≥ floor · retain(0); the smallest α among equals.

    `evaluate(alpha)` returns at least `forget` and `retain` in percent; it is called once for an α, and for α = 0.
    `search="grid"` tries every lattice point up to `max_alpha` (1.0 unless given: the paper's 21 points).
    `search="bracket"` doubles the upper end (from 1.0, to at most `max_alpha` or 64) while the floor holds, stops
    where forget accuracy is 0, then bisects; on curves that fall it finds the grid's point in about 8 evaluations.
    When evaluated points contradict that, it goes over to the grid up to the bracket's end, and `note` says so.

    Raises InputError for an unknown objective or search, for a floor outside [0, 1], a step or `max_alpha` that is
    not positive, and for scores that are missing or outside 0 … 100.

    >>> curve = lambda a: {"forget": 80 - 80 * a, "retain": 90 - 10 * a**2}
    >>> choose_alpha(curve, floor=0.95).alpha
    0.65

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583); task negation after Ilharco et al., 2023.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}; there is {', '.join(OBJECTIVES)}")
    if not 0.0 <= floor <= 1.0:
        raise InputError(f"floor must be a share from 0 to 1, got {floor}")
    if not step > 0.0 or (max_alpha is not None and not max_alpha > 0.0):
        raise InputError(f"step and max_alpha must be positive, got {step} and {max_alpha}")
    curve = _Curve(evaluate, step, floor)
    note = ""
    if search == "grid":
        last = _last(max_alpha or 1.0, step)
        _try_grid(curve, last, 1)
    elif search == "bracket":
        last = _last(max_alpha or BRACKET_LIMIT, step)
        _try_bracket(curve, min(_last(1.0, step), last), last)
        if not curve.is_monotone():
            end = max(curve.points)
            stride = -(-end // FALLBACK_POINTS)
            _try_grid(curve, end, stride)
            note = (
                "The evaluated points do not fall steadily with α, so every "
                f"{curve.alpha(stride):g} up to {curve.alpha(end):g} was evaluated instead of bisecting."
            )
    else:
        raise InputError(f"unknown search {search!r}; there are bracket and grid")
    chosen = curve.best()
    end = max(curve.points)
    return Selection(
        alpha=curve.alpha(chosen),
        scores=curve.at(chosen),
        floor=curve.floor,
        curve=tuple(Point(curve.alpha(k), curve.at(k)) for k in sorted(curve.points)),
        open_end=end >= last and curve.holds(end) and curve.forget(chosen) > 0.0,
        note=note,
    )


def _last(alpha: float, step: float) -> int:
    """Return the last lattice index not beyond `alpha`, at least 1."""
    return max(1, int(alpha / step + 1e-6))


def _try_grid(curve: _Curve, last: int, stride: int) -> None:
    for k in range(0, last + 1, stride):
        curve.at(k)


def _try_bracket(curve: _Curve, first: int, last: int) -> None:
    holds, breaks = 0, first
    while curve.holds(breaks):
        holds = breaks
        if curve.forget(holds) == 0.0 or holds == last:
            break
        breaks = min(2 * breaks, last)
    while breaks - holds > 1 and curve.forget(holds) > 0.0:
        middle = (holds + breaks) // 2
        if curve.holds(middle):
            holds = middle
        else:
            breaks = middle
    _try_smaller(curve, holds)


def _try_smaller(curve: _Curve, holds: int) -> None:
    """Bisect for the smallest α whose forget accuracy equals the one at `holds`."""
    target = curve.forget(holds)
    above = max((k for k in curve.points if k <= holds and curve.forget(k) > target), default=0)
    equal = min(k for k in curve.points if k <= holds and curve.forget(k) <= target)
    while equal - above > 1:
        middle = (above + equal) // 2
        if curve.forget(middle) > target:
            above = middle
        else:
            equal = middle
