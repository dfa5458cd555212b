"""Choosing α, the scale of the negation: objectives, and the search for the best point of a lattice.

Accuracies are percentages. α runs over the lattice k · step (0.05 in the paper); α = 0 is the base.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from negmerge.errors import InputError, nearest
from negmerge.selection.curve import LASTING, OBJECTIVES, Curve, Evaluate, chosen_point, floors_of, rank_models
from negmerge.selection.lasting import ComesBack, Position, Tried, choose_lasting, distance_of, step_of
from negmerge.selection.search import try_bisection, try_deeper, try_fibonacci, try_grid

__all__ = [
    "CANDIDATES",
    "LASTING",
    "MARGIN",
    "OBJECTIVES",
    "ComesBack",
    "Evaluate",
    "Point",
    "Position",
    "Search",
    "Selection",
    "Tried",
    "choose_alpha",
    "chosen_point",
    "distance_of",
    "floors_of",
    "rank_models",
]

Search = Literal["bracket", "grid", "paper"]

BRACKET_LIMIT = 1024.0
MARGIN, MOST_MARGIN = 1.25, 10.0
CANDIDATES = 8  # α whose models are tested for what comes back, at most
FALLBACK_POINTS = 32  # of the first grid; more than the paper's 21


@dataclass(frozen=True)
class Point:
    """One evaluated α and what was measured there."""

    alpha: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Selection:
    """The chosen α with everything that led to it.

    `floor` is the absolute retain accuracy that must hold, in percent, None where the objective knows none; `lowest` is
    the smallest α with the best value, beyond which `alpha` lies by the margin; `open_end` says that the best α may lie
    beyond the largest tried; `note` says what the reader must know; `seconds` is what the evaluations took, where
    somebody took the time; `tried` are the α whose models were tested for what comes back, of `lasting` alone.
    """

    alpha: float
    scores: dict[str, float]
    floor: float | None
    curve: tuple[Point, ...]
    open_end: bool = False
    note: str = ""
    seconds: float = 0.0
    lowest: float | None = None
    tried: tuple[Tried, ...] = ()


def choose_alpha(
    evaluate: Evaluate,
    objective: str = "retain-floor",
    *,
    floor: float = 0.95,
    floor_on: Sequence[str] = ("retain",),
    search: Search = "bracket",
    step: float = 0.05,
    max_alpha: float | None = None,
    margin: float = MARGIN,
    gone: float = 0.0,
    comes_back: ComesBack | None = None,
    candidates: int = CANDIDATES,
) -> Selection:
    """Choose the scale α of a negation from what `evaluate` measures.

    retain-floor: argmin over α of max(forget(α), validation_forget(α)) subject to retain(α) ≥ floor · retain(0): the
    request's own rows and held-out ones of their kind, the worse counts. Of equal α the smallest, α*, is found, and
    then the largest α ≤ margin · α* (rounded up to the lattice) is taken where the value is no larger, the floor holds
    and the retain loss is at most that of α = 0 + max(0.05 nat, 10 %): a little deeper, where that costs nothing, so
    that the choice does not stand on the last row that was lost. Values up to `gone`, in percent, are equal: a
    probability never reaches 0, and what is a thousand times too improbable already is no better forgotten when it is
    a million times so.
    match-reference: argmin over α of gap(α), the average gap to the Retrain model; no floor, no margin.
    match-holdout: argmin over α of holdout(α), the distance of the behaviour on the forget set from that of the
    base on unseen rows, subject to the same floor; no margin. Of equal α both take the smallest.
    lasting: α* as retain-floor finds it; then, among the α from α* to 8 · α* that hold the floor and the bound on
    retain loss, the one at which the least `comes_back`: a function of α that returns, by test, the position of θ(α)
    between Retrain (0) and the base (1). The largest of the positions is to be nearest to 0, from above; surely beyond
    0 is as far as its distance. It is called for `candidates` α at most. See `choose_lasting`.

    `evaluate(alpha)` returns `forget`, `retain` and the objective's own score (`gap`, `holdout`), all from 0 to 100,
    and where they are known `validation_forget`, further accuracies named in `floor_on`, and `retain_loss` in nats;
    it is called once for an α, and for α = 0. `search="grid"` tries every lattice point up to `max_alpha` (1.0 unless
    given: the paper's 21 points), and `search="paper"` does so without a margin: the first strict minimum of the grid.
    `search="bracket"` doubles the upper end (from 1.0, to at most `max_alpha` or 1024) while the best may lie beyond
    it, and stops where nothing is left to forget. Then retain-floor bisects, and the others, whose value falls and then
    rises, take Fibonacci's steps. With max_alpha = 1 and no margin that finds the grid's point in at most 8
    evaluations, where the value falls strictly (until it is 0) or falls and rises strictly; flat stretches may take
    more. When evaluated points contradict the shape, it goes over to the grid up to the bracket's end (where that has
    more than 32 points to every second, third, … and then to those beside the best, in rounds of 32 at most), and
    `note` says so.

    Raises InputError for an unknown objective or search, for a floor outside [0, 1], a margin outside [1, 10], `gone`
    outside [0, 100), a step or `max_alpha` that is not positive, a step beyond the largest α, and for scores that are
    missing or outside 0 … 100.

    >>> curve = lambda a: {"forget": 80 - 80 * a, "retain": 90 - 10 * a**2}
    >>> choose_alpha(curve, floor=0.95).alpha
    0.65
    >>> gone = lambda a: {"forget": max(0, 80 - 100 * a), "retain": 90}
    >>> choose_alpha(gone).lowest, choose_alpha(gone).alpha
    (0.8, 1.0)
    >>> fading = lambda a: {"forget": 80 * 0.01**a, "retain": 90 - a}
    >>> choose_alpha(fading).alpha, choose_alpha(fading, gone=1.0).alpha
    (4.5, 1.25)
    >>> choose_alpha(lambda a: {**curve(a), "gap": abs(20 - 80 * a)}, "match-reference").alpha
    0.25

    Source: Kim, Han, Choe, NegMerge, ICML 2025 (arXiv 2410.05583); task negation after Ilharco et al., 2023.
    """
    _check(objective, floor, step, max_alpha, margin, search)
    if not 0.0 <= gone < 100.0:
        raise InputError(f"gone must be a percentage from 0 to below 100, got {gone}")
    if (objective == LASTING) != (comes_back is not None):
        raise InputError("lasting needs comes_back, a function of α that returns positions by test; no other takes it")
    if candidates < 2:
        raise InputError(f"candidates must be at least 2, got {candidates}")
    name = "retain-floor" if objective == LASTING else objective
    curve = Curve(evaluate, step, name, floor, tuple(floor_on), gone)
    note = ""
    if search in ("grid", "paper"):
        last = _last(max_alpha or 1.0, step)
        try_grid(curve, 0, last, 1)
    elif search == "bracket":
        last = _last(max_alpha or BRACKET_LIMIT, step)
        note = _bracket(curve, min(_last(1.0, step), last), last)
    else:
        raise InputError(f"unknown search {search!r}; there are bracket, grid and paper")
    lowest = curve.best()
    end = max(curve.points)
    open_end = end >= last and _may_lie_beyond(curve, lowest, end)
    chosen = lowest
    tried: list[Tried] = []
    if comes_back is not None:
        chosen, tried = choose_lasting(curve, lowest, last, comes_back, candidates)
        note = " ".join(filter(None, [note, _lasting_note(tried)]))
    elif curve.objective.falls and search != "paper":
        chosen = try_deeper(curve, lowest, margin, last)
        while curve.best() != lowest:  # deeper was better: the points before contradicted the shape
            lowest = curve.best()
            chosen = try_deeper(curve, lowest, margin, last)
    return Selection(
        alpha=curve.alpha(chosen),
        scores={**curve.at(chosen), **_lasting_score(tried, curve.alpha(chosen))},
        floor=curve.floor,
        curve=tuple(Point(curve.alpha(k), curve.at(k)) for k in sorted(curve.points)),
        open_end=open_end,
        note=note,
        lowest=curve.alpha(lowest),
        tried=tuple(tried),
    )


def _check(objective: str, floor: float, step: float, max_alpha: float | None, margin: float, search: str) -> None:
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}{nearest(objective, OBJECTIVES)}; there are {_names()}")
    if not 0.0 <= floor <= 1.0:
        raise InputError(f"floor must be a share from 0 to 1, got {floor}")
    if not step > 0.0 or (max_alpha is not None and not max_alpha > 0.0):
        raise InputError(f"step and max_alpha must be positive, got {step} and {max_alpha}")
    if not 1.0 <= margin <= MOST_MARGIN:
        raise InputError(f"margin must be a number from 1 (no margin) to {MOST_MARGIN:g}, got {margin}")
    if step > (max_alpha or 1.0) + 1e-9 and (max_alpha is not None or search != "bracket"):
        raise InputError(f"max_alpha ({max_alpha or 1.0:g}) must not be below the step ({step:g}): no α could be tried")


def _lasting_score(tried: Sequence[Tried], alpha: float) -> dict[str, float]:
    """Return the score that orders models by what lasts; none where no test can tell."""
    found = [one.distance for one in tried if one.alpha == alpha and one.distance is not None]
    return {LASTING: step_of(found[0])} if found else {}


def _lasting_note(tried: Sequence[Tried]) -> str:
    told = [one for one in tried if one.positions]
    if not told:
        return "No test could tell what comes back, so the smallest α is taken that forgets as much as any."
    if not any(one.reached for one in told):
        return "At no α that is free does as little come back as of Retrain: negation hides here, it does not remove."
    return ""


def _bracket(curve: Curve, first: int, last: int) -> str:
    """Search with few evaluations, or with all where they contradict what the search relies on, and say so."""
    curve.at(0)
    if curve.objective.falls:
        try_bisection(curve, first, last)
        sound, shape, instead = curve.is_monotone(), "fall steadily with α", "bisecting"
    else:
        try_fibonacci(curve, first, last)
        sound, shape, instead = curve.is_unimodal(last), "fall and then rise with α", "narrowing down"
    if sound:
        return ""
    end = max(first, *curve.points)
    coarse = stride = -(-end // FALLBACK_POINTS)
    try_grid(curve, 0, end, stride)
    near = ""
    while stride > 1:
        best, narrower = curve.best(), -(-2 * stride // FALLBACK_POINTS)
        reach = (stride - 1) // narrower * narrower
        try_grid(curve, max(best % narrower, best - reach), min(end, best + reach), narrower)
        stride = narrower
        near = f" and every {curve.alpha(1):g} beside the best of them"
    return (
        f"The evaluated points do not clearly {shape}, so every {curve.alpha(coarse):g} up to {curve.alpha(end):g}"
        f"{near} was evaluated instead of {instead}."
    )


def _may_lie_beyond(curve: Curve, chosen: int, end: int) -> bool:
    """Whether a better α may lie beyond the last one tried: nothing there says that it has become worse."""
    if curve.objective.falls:
        return curve.holds(end) and 0.0 < curve.value(end) <= curve.value(chosen)
    return chosen == end and curve.value(chosen) > 0.0


def _last(alpha: float, step: float) -> int:
    """Return the last lattice index not beyond `alpha`, at least 1."""
    return max(1, int(alpha / step + 1e-6))


def _names() -> str:
    *most, last = OBJECTIVES
    return f"{', '.join(most)} and {last}"
