"""The tables of benchmarks/what_differs.py, from what its stages found."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from what_differs_rows import CONFIRMING, TRAINED_ON_RETAIN, Setting

Done = Mapping[str, Mapping[str, Any]]


def rows_by_draw(done: Done) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the rows of the draws that are for choosing: by draw, by label."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, what in done.items():
        if "rows" in what and not stage.startswith(CONFIRMING):
            found.setdefault(stage.rpartition("-")[2], {}).update(what["rows"])
    return found


def chosen_row(done: Done) -> str:
    """Return the row with the smallest mean gap *as selection saw it*, of those that do not train on retain rows.

    Only rows that are there on every draw for choosing count; nothing that is reported is looked at. Raises SystemExit
    where no row is there on all.
    """
    draws = rows_by_draw(done)
    common = [row for row in next(iter(draws.values()), {}) if all(row in one for one in draws.values())]
    seen = {
        row: statistics.mean(one[row]["seen_gap"] for one in draws.values())
        for row in common
        if row not in TRAINED_ON_RETAIN and all(one[row]["seen_gap"] is not None for one in draws.values())
    }
    if not seen:
        raise SystemExit("no row is there on every draw yet; do the stages before this one")
    return min(seen, key=lambda row: (seen[row], row))


def tables(setting: Setting, done: Done) -> str:
    """Return all tables as Markdown."""
    draws = [draw.name for draw in setting.draws if not draw.confirms]
    parts = [_rows_table(draws, done)]
    confirmed = {stage.rpartition("-")[2]: what for stage, what in done.items() if stage.startswith(CONFIRMING)}
    for name, what in confirmed.items():
        heading = f"### Confirmed on {name}, which nothing was chosen on (chosen: {what['chosen']})"
        parts += [heading, _confirmed_table(what)]
    if any("bound" in what for what in done.values()):
        parts += ["### The bound", _bound_table(done)]
    return "\n\n".join(parts) + "\n"


def _rows_table(draws: Sequence[str], done: Done) -> str:
    found = rows_by_draw(done)
    header = ["row", "rows it reads", *(f"gap, {name}" for name in draws), "retain", "forget", "test", "membership"]
    header += ["gap selection saw", "α", "minutes"]
    lines = _header(header, 2)
    for name in draws:
        base = next(
            (what["base"] for stage, what in done.items() if stage.endswith(f"-{name}") and "base" in what), None
        )
        if base is not None:
            cells = ["doing nothing", "–", *(_number(base["gap"]) if one == name else "" for one in draws)]
            cells += [_number(base[key]) for key in ("retain", "forget", "test", "membership")]
            lines.append(_line([*cells, "–", "–", "–"]))
    for row in dict.fromkeys(row for one in found.values() for row in one):
        of = {name: one[row] for name, one in found.items() if row in one}
        gaps = [_number(of[name]["gap"]) if name in of else "" for name in draws]
        every = list(of.values())
        cells = [row, ", ".join(every[0]["needs"]) or "–", *gaps]
        cells += [_mean([one[key] for one in every]) for key in ("retain", "forget", "test", "membership", "seen_gap")]
        cells += [" / ".join("–" if one["alpha"] is None else f"{one['alpha']:g}" for one in every)]
        lines.append(_line([*cells, _mean([one["seconds"] / 60 for one in every])]))
    return "\n".join(lines)


def _confirmed_table(what: Mapping[str, Any]) -> str:
    lines = _header(["row", "gap", "retain", "forget", "test", "membership", "α"], 1)
    for row, one in {"doing nothing": {**what["base"], "alpha": None}, **what["rows"]}.items():
        numbers = [_number(one[key]) for key in ("gap", "retain", "forget", "test", "membership")]
        lines.append(_line([row, *numbers, "–" if one["alpha"] is None else f"{one['alpha']:g}"]))
    return "\n".join(lines)


def _bound_table(done: Done) -> str:
    lines = _header(
        ["draw", "coefficients by", "numbers", "gap on the rows it was found on", "gap reported", "best row"], 2
    )
    rows = rows_by_draw(done)
    for stage, what in done.items():
        if "bound" in what:
            one, draw = what["bound"], stage.rpartition("-")[2]
            best = min((row["gap"] for row in rows.get(draw, {}).values() if row["alpha"] is not None), default=None)
            numbers = [str(one["coefficients"]), _number(one["seen"]), _number(one["reported"]["gap"]), _number(best)]
            lines.append(_line([draw, one["by"], *numbers]))
    return "\n".join(lines)


def _header(names: Sequence[str], words: int) -> list[str]:
    return [_line(names), _line([*["---"] * words, *["---:"] * (len(names) - words)])]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _mean(values: Sequence[float | None]) -> str:
    there = [value for value in values if value is not None]
    return _number(statistics.mean(there)) if there else "–"
