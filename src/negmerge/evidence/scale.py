"""The one scale of all tests: where a model stands between Retrain (0) and the base (1), and how surely."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from torch import Tensor

from negmerge.errors import DivergedError, InputError

Unit = Literal["rows", "draws"]
Role = Literal["base", "reference", "model"]
MODELS: tuple[Role, ...] = ("model", "reference", "base")

LEAST_SHARE = 0.1  # of the score's range, that base and Retrain must lie apart
WIDEST = 0.5  # interval of a position that still says something
BEYOND = 0.1  # of the score's range, further from the base than Retrain: as telling as too little
STUDENT = 12.706204736, 4.302652730, 3.182446305, 2.776445105  # quantiles at 97.5 %, of 1 … 4 degrees of freedom
REACHED = 0.1  # position that the interval must reach, to pass


@dataclass(frozen=True)
class Reading:
    """What a test read of the three models, and the position that follows; None where base and Retrain are equal.

    `base`, `reference` and `model` are means of the score over `n` rows or draws; `low` and `high` are the ends of the
    95 % interval of the position, which must reach `bar`. `controls` are the positions of further Retrains. A reading
    that is not `informative` says `why`. `beyond`: the model lies surely on the far side of Retrain, whether or not
    base and Retrain can be told apart.
    """

    name: str
    base: float | None
    reference: float | None
    model: float | None
    position: float | None
    low: float | None
    high: float | None
    n: int
    unit: Unit
    informative: bool
    why: str = ""
    beyond: bool = False
    bar: float = REACHED
    controls: tuple[float, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether the interval of the position reaches the bar."""
        return self.low is not None and self.low <= self.bar

    def as_json(self) -> dict[str, Any]:
        """Return the reading as plain JSON values."""
        return {**asdict(self), "passes": self.passes}


def read_scale(
    name: str, scores: Mapping[Role, Tensor], *, span: float, unit: Unit = "rows", both_sides: bool = False
) -> Reading:
    """Return where a model stands: position = (U − R) / (B − R), with its interval.

    U, R and B are the means of the scores of `model`, `reference` and `base`, float64 [n] each, one for each row or
    draw, the same in all three, higher where more is known. With e_i = (u_i − r_i) − position · (b_i − r_i), the
    standard error of the position is sd(e) / (√n · |B − R|), sd with n − 1, and the interval is ± t times it, t
    Student's 97.5 % quantile. Over rows a standard error is at least that of half a row, span / (2n): where all rows
    agree, n of them still leave doubt. `span` is the range of the score (100 of a percentage).

    Informative: B − R > 0, larger than twice its standard error and than a tenth of the span, and the interval narrower
    than 0.5. Beyond: the upper end of the interval of U − R lies below −span / 10; only of a score of which too little
    is as telling as too much (`both_sides`).

    One row alone is not informative. Raises InputError for other shapes or no rows, and DivergedError for NaN.

    >>> import torch
    >>> none = torch.zeros(400)
    >>> one = read_scale("x", {"base": torch.ones(400), "reference": none, "model": none}, span=1.0)
    >>> one.position, one.informative, one.passes
    (0.0, True, True)
    """
    u, r, b = (scores[role].double() for role in MODELS)
    if not (u.shape == r.shape == b.shape) or u.dim() != 1 or not len(u):
        raise InputError(f"{name}: a position needs as many rows of each of three models, and one of them at least")
    if any(column.isnan().any() for column in (u, r, b)):
        raise DivergedError(f"{name}: the scores hold NaN: a model has diverged")
    n = len(u)
    if n < 2:
        alone = unread(name, "one row alone tells nothing of another", unit)
        return replace(alone, base=float(b), reference=float(r), model=float(u), n=n)
    least = span / (2 * n) if unit == "rows" else 0.0
    t = student(n - 1)
    apart, apart_error = float((b - r).mean()), _error(b - r, least)
    behind = float((u - r).mean()) + t * _error(u - r, least)
    position = low = high = None
    if apart != 0.0:
        position = float((u - r).mean()) / apart
        half = t * _error((u - r) - position * (b - r), least) / abs(apart)
        low, high = position - half, position + half
    why = _why_not(apart, apart_error, span, low, high)
    return Reading(
        name,
        base=float(b.mean()),
        reference=float(r.mean()),
        model=float(u.mean()),
        position=position,
        low=low,
        high=high,
        n=n,
        unit=unit,
        informative=not why,
        why=why,
        beyond=both_sides and behind < -BEYOND * span,
    )


def with_controls(reading: Reading, controls: Sequence[Reading]) -> Reading:
    """Return a reading beside those of further Retrains, each read in the place of the model.

    Rows and draws do not tell how much one Retrain differs from another. So the bar rises to the upper end of the
    highest control's interval, and a model lies beyond Retrain only where no control does. Where a control's interval
    reaches 1, Retrain cannot be told from the base, and the reading is not informative.

    >>> one = Reading("x", 1.0, 0.0, 0.2, 0.2, 0.15, 0.25, 9, "rows", informative=True)
    >>> other = Reading("x", 1.0, 0.0, 0.1, 0.1, 0.05, 0.16, 9, "rows", informative=True)
    >>> one.passes, with_controls(one, [other]).passes
    (False, True)
    """
    read = [one for one in controls if one.position is not None and one.high is not None]
    bar = max([REACHED, *(one.high for one in read if one.high is not None)])
    drowned = reading.informative and bar >= 1.0
    return replace(
        reading,
        bar=bar,
        controls=tuple(one.position for one in read if one.position is not None),
        beyond=reading.beyond and not any(one.beyond for one in controls),
        informative=reading.informative and not drowned,
        why="another Retrain lies as far from Retrain as the base" if drowned else reading.why,
    )


def unread(name: str, why: str, unit: Unit = "rows") -> Reading:
    """Return the reading of a test that cannot tell here, and says why."""
    return Reading(name, None, None, None, None, None, None, 0, unit, informative=False, why=why)


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t with so many degrees of freedom.

    From 5 on by the expansion of Fisher and Cornish (Abramowitz and Stegun 26.7.5), within 0.004.

    >>> [round(student(n), 2) for n in (1, 2, 4, 30)]
    [12.71, 4.3, 2.78, 2.04]
    """
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z, v = NormalDist().inv_cdf(0.975), float(freedom)
    terms = (
        (z**3 + z) / (4 * v),
        (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2),
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3),
    )
    return z + sum(terms)


def _error(values: Tensor, least: float) -> float:
    """Return the standard error of a mean."""
    return max(least, float(values.std(correction=1)) / math.sqrt(len(values)))


def _why_not(apart: float, error: float, span: float, low: float | None, high: float | None) -> str:
    """Return why a position says nothing, or ''."""
    if apart <= 2.0 * error or low is None or high is None:
        return "the base does not surely lie above Retrain"
    if apart <= LEAST_SHARE * span:
        return "base and Retrain are less than a tenth of the range apart"
    if high - low >= WIDEST:
        return "the interval is wider than half the scale"
    return ""
