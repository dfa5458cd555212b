"""Few members: consensus against the mean of the same ones, plain and projected on retain inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

from questions import pool_size
from questions.draws import Draw, Row
from questions.tables import Spread, markdown

TITLE = "Few members, plain and projected"
SIZES = (2, 3, 5, 10)
THRESHOLD = 0.75
STRENGTHS = (None, 10.0)
MEAN, SIGNS = "uniform", "consensus of 75 %"


def merges(size: int) -> Mapping[str, tuple[str, dict[str, Any]]]:
    """Return both merges; of two or three members 75 % are all, so that rows of unanimity are taken over."""
    signs = ("consensus", {} if THRESHOLD * size > size - 1 else {"threshold": THRESHOLD})
    return {MEAN: ("uniform", {}), SIGNS: signs}


def measure(draw: Draw) -> list[Row]:
    """Return a row for both merges of the first members in each order, plain and projected."""
    return [
        {"order": number, "size": size, "merge": label, "strength": strength, **draw.row(members, *merge, strength)}
        for number in range(pool_size.ORDERS)
        for size in SIZES
        for members in [draw.some(draw.order(number)[:size])]
        for label, merge in merges(size).items()
        for strength in STRENGTHS
    ]


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each size and strength: both gaps, and what consensus gains over the mean, draw by draw."""
    lines = []
    for size in SIZES:
        for strength in STRENGTHS:
            of = [{m: _gaps(draw, size, strength, m) for m in (MEAN, SIGNS)} for draw in draws]
            gains = [[a - b for a, b in zip(one[MEAN], one[SIGNS], strict=True)] for one in of]
            every = [gain for draw in gains for gain in draw]
            shown = [Spread.of(gap for one in of for gap in one[m]) for m in (MEAN, SIGNS)]
            by_draw = " / ".join(f"{Spread.of(draw).mean:+.1f}" for draw in gains)
            nearer = f"{sum(gain > 0 for gain in every)} of {len(every)}"
            told = "–" if strength is None else f"{strength:g}"
            lines.append([size, told, *shown, Spread.of(every), by_draw, nearer])
    header = ["N", "λ", f"gap: {MEAN}", f"gap: {SIGNS}", "gained", "gained, by draw", "consensus nearer"]
    return markdown(header, lines)


def _gaps(draw: Sequence[dict[str, Any]], size: int, strength: float | None, merge: str) -> list[float]:
    """Return the gap of a merge in each order."""
    asked = (size, strength, merge)
    return [row["gap"] for row in draw if (row["size"], row["strength"], row["merge"]) == asked]
