"""What is kept against what comes back, where α was chosen to last."""

from typing import Any

from negmerge.report import numbers
from negmerge.report.comparison import label
from negmerge.report.figures import kept
from negmerge.report.inputs import Json
from negmerge.report.markup import markup
from negmerge.report.scores import known_of


def lasting_section(results: Json, main: str | None) -> dict[str, Any] | None:
    """Return the picture of all vectors whose models were tested, the main row's table, and whether any got there.

    None where no α was chosen by what comes back, or no test could tell.
    """
    trails = [trail for name, row in results["methods"].items() for trail in _trails(label(results, name), row)]
    if not trails:
        return None
    row = _first(results["methods"].get(main) or {})
    told = [one for one in row.get("lasting") or [] if one.get("distance") is not None]
    everywhere = [one for r in results["methods"].values() for one in _first(r).get("lasting") or []]
    return {
        "figure": markup(kept.kept_figure(trails, "kept", known_of(results, "of what stays"))),
        "rows": [_cells(one, _is_chosen(one, row)) for one in told],
        "with_strength": any(one.get("strength") is not None for one in told),
        "tests": list(dict.fromkeys(name for one in told for name in one["positions"])),
        "reached": any(one.get("reached") for one in told),
        "reached_anywhere": any(one.get("reached") for one in everywhere),
        "tested": len(everywhere),
    }


def _trails(name: str, row: Json) -> list[kept.Trail]:
    row = _first(row)
    told = [one for one in row.get("lasting") or [] if one.get("distance") is not None]
    strengths = list(dict.fromkeys(one.get("strength") for one in told))
    return [
        kept.Trail(
            name if strength is None else f"{name}, λ {numbers.setting(strength)}",
            tuple(
                kept.Point(one["alpha"], max(p["position"] for p in one["positions"].values()), one["retain"],
                           _is_chosen(one, row))
                for one in told
                if one.get("strength") == strength
            ),
        )
        for strength in strengths
    ]  # fmt: skip


def _is_chosen(one: Json, row: Json) -> bool:
    strength = (row.get("projection") or {}).get("strength")
    return bool(one["alpha"] == row.get("alpha") and one.get("strength") in (None, strength))


def _cells(one: Json, chosen: bool) -> dict[str, Any]:
    positions = {
        name: f"{p['position']:.2f} ({p['low']:.2f} … {p['high']:.2f})".replace("-", "−")
        for name, p in one["positions"].items()
    }
    return {
        "strength": numbers.MISSING if one.get("strength") is None else numbers.setting(one["strength"]),
        "alpha": numbers.alpha(one["alpha"]),
        "retain": numbers.percent(one["retain"]),
        "positions": positions,
        "chosen": chosen,
    }


def _first(row: Json) -> Json:
    """Return the row of the first seed, where there are several."""
    return row if row.get("lasting") or not row.get("seeds") else row["seeds"][0]
