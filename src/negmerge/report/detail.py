"""What stands behind the signature: curves, layers, pool, answers and examples, as the templates show them."""

from typing import Any

from negmerge.report import explain, numbers, projected
from negmerge.report.comparison import gap_to, label
from negmerge.report.figures import answers, cosine, cost, curve, layers, lottery, matrix
from negmerge.report.figures import projected as projected_layers
from negmerge.report.inputs import Json
from negmerge.report.markup import markup
from negmerge.report.scores import known_of

ROLES = ("base", "model", "reference")
LEAST_COST = 60.0  # seconds of the dearest method, below which time is no cost
SPREAD = 1.5  # that it must be above the cheapest by, for the picture to say something


def curve_section(results: Json, main: str | None) -> list[dict[str, Any]]:
    """Return the α curves, that of the main method first."""
    names = sorted(results["methods"], key=lambda name: name != main)
    shown: list[dict[str, Any]] = []
    target = (results.get("reference") or {}).get("forget") if explain.sees_own_rows(results) else None
    for i, name in enumerate(names):
        found = curve.curves_of(results["methods"][name], target)
        if found:
            title = label(results, name)
            figure = curve.curve_figure(found, f"curve{i}", title, small=name != main)
            shown.append(
                {
                    "main": name == main,
                    "title": title,
                    "figure": markup(figure),
                    "left_out": curve.left_out(found),
                    "target": target,
                    "held_out": all(curve.HELD_OUT in point for one in found for point in one.points),
                    "floor": found[0].floor,
                    "alphas": [one.chosen for one in found if one.chosen is not None],
                    "note": results["methods"][name].get("note"),
                    "seeds": len(found),
                }
            )
    return shown


def cost_figure(results: Json, main: str | None) -> Any:
    """Return the picture of minutes against gap; None where the times of the methods hardly differ, or are short."""
    costs = cost.costs_of(results, main)
    minutes = [one.minutes for one in costs]
    if len(costs) < 2 or 60 * max(minutes) < LEAST_COST or max(minutes) < SPREAD * min(minutes):
        return None
    return markup(cost.cost_figure(costs, gap_to(results, results["base"]), "cost"))


def projection_section(results: Json, main: str | None, row: Json | None) -> dict[str, Any] | None:
    """Return what the projection of the main row did to its vector; None where it was not projected."""
    done = projected.projection_of(row) if row is not None else None
    if row is None or done is None or main is None:
        return None
    shown = projected_layers.pick(done["layers"])
    return {
        "title": label(results, main),
        "figure": markup(projected_layers.projected_figure(shown, "projected")) if shown else "",
        "shown": len(shown),
        "all": len(done["layers"]),
        "sentences": projected.sentences(row),
        "strengths": projected.strengths_table(row),
    }


def layers_section(results: Json, main: str | None, row: Json | None) -> dict[str, Any] | None:
    """Return how far the members agree, layer by layer; None where nobody counted, and of one member."""
    pool = results.get("pool") or {}
    if row is None or len(pool.get("members") or []) == 1:
        return None
    filters = (row.get("method") or main) == "consensus"
    source = row if row.get("layers") or not row.get("seeds") else row["seeds"][0]
    everything = (source.get("layers") or []) if filters else []
    shown = layers.pick(everything)
    share = row.get("consensus") if filters and row.get("consensus") is not None else pool.get("consensus")
    if not shown and share is None:
        return None
    threshold = float((row.get("settings") or {}).get("threshold") or 1.0)
    chance = pool.get("chance")
    if filters and threshold < 1.0 and pool.get("members"):
        chance = layers.chance_level(len(pool["members"]), threshold)
    figure = layers.layers_figure(shown, chance, "layers") if shown else ""
    return {
        "figure": markup(figure),
        "shown": len(shown),
        "all": len(everything),
        "share": share,
        "chance": chance,
        "filters": filters,
        "threshold": threshold,
        "kept": row.get("kept") if filters else None,
        "merged": row.get("merged_elements"),
    }


def pool_section(pool: Json) -> dict[str, Any] | None:
    """Return the members, their settings, and how alike they are; None without members."""
    members = [{**member, "bad": bool(member.get("bad"))} for member in pool.get("members") or []]
    if not members:
        return None
    settings: dict[str, list[str]] = {}
    for member in members:
        for key in member.get("settings") or {}:
            settings.setdefault(key, [])
    for key, values in settings.items():
        values += [numbers.setting((member.get("settings") or {}).get(key)) for member in members]
    measured = [key for key in ("alpha", "forget", "retain") if any(member.get(key) is not None for member in members)]
    matrix = pool.get("cosine") or []
    pairs = [value for i, line in enumerate(matrix) for value in line[:i] if value is not None]
    return {
        "members": members,
        "varied": [key for key, values in settings.items() if len(set(values)) > 1],
        "fixed": [
            (key, values[0])
            for key, values in settings.items()
            if len(set(values)) == 1 and values[0] != numbers.MISSING
        ],
        "settings": settings,
        "measured": measured,
        "figure": markup(cosine.cosine_figure(matrix, "cosine")) if pairs else "",
        "shown": min(len(matrix), cosine.MOST),
        "adapter": pool.get("adapter"),
        "advice": pool.get("advice"),
        "compared": len(members) > 1 and any(member.get("likeness") is not None for member in members),
        "cosine_low": min(pairs, default=None),
        "cosine_high": max(pairs, default=None),
        "cosine_mean": sum(pairs) / len(pairs) if pairs else None,
        "zero_share": pool.get("zero_share"),
        "base_loss": ((pool.get("health") or {}).get("base") or {}).get("loss"),
        "seconds": pool.get("seconds"),
    }


def answers_section(results: Json) -> list[dict[str, Any]]:
    """Return the pictures of what forgotten rows, and unseen ones of their kind, are taken for."""
    found = []
    for i, one in enumerate((results.get("shown") or {}).get("answers") or []):
        shares = {role: [100 * n / one["rows"] for n in one[role]] for role in ROLES if one.get(role)}
        figure = markup(answers.answers_figure([str(name) for name in one["labels"]], shares, f"answers{i}"))
        found.append({"part": one["part"], "rows": one["rows"], "figure": figure})
    return found


def examples_section(results: Json) -> list[dict[str, Any]]:
    """Return the examples by what they are of: the forgotten kind, and others."""
    found = (results.get("shown") or {}).get("examples") or []
    titles = {"test_forget": "Of the kind that was to be forgotten", "test": "Of what was to stay"}
    return [
        {"title": title, "examples": [one for one in found if one["part"] == part]}
        for part, title in titles.items()
        if any(one["part"] == part for one in found)
    ]


def lottery_section(results: Json, main: str | None) -> dict[str, Any] | None:
    """Return every member alone beside the main method, as selection saw them; None where nobody tried them."""
    found = (results.get("shown") or {}).get("lottery") or []
    row = results["methods"].get(main) or {}
    source = row if row.get("curve") or not row.get("seeds") else row["seeds"][0]
    at = next((point for point in source.get("curve") or [] if point["alpha"] == source.get("alpha")), None)
    if len(found) < 2 or at is None:
        return None
    tickets = [lottery.Ticket(one["member"], one["forget"], one["retain"]) for one in found]
    merged = lottery.Ticket(label(results, str(main)), at["forget"], at["retain"], merged=True)
    gone, kept = (known_of(results, part) for part in ("of what was to be forgotten", "of what stays"))
    ranked = sorted(found, key=lambda one: (one["forget"], -one["retain"]))
    no_better = sum((one.forget, -one.retain) >= (merged.forget, -merged.retain) for one in tickets)
    return {
        "figure": markup(lottery.lottery_figure([*tickets, merged], "lottery", gone, kept)),
        "members": ranked,
        "count": len(tickets),
        "no_better": no_better,
        "merged": {"alpha": source["alpha"], "forget": at["forget"], "retain": at["retain"]},
    }


def matrix_section(results: Json) -> dict[str, Any] | None:
    """Return the picture of a corner of one matrix; None where the vector changes every element, or is not known."""
    found = (results.get("shown") or {}).get("matrix")
    if not found or not found["signs"]:
        return None
    rows, columns = found["shape"]
    kept = found["kept"] / (rows * columns)
    if kept >= 1.0:
        return None
    return {
        "figure": markup(matrix.matrix_figure(found["signs"], str(found["name"]), "matrix")),
        "name": found["name"],
        "rows": rows,
        "columns": columns,
        "kept": kept,
        "drawn": [len(found["signs"]), max(map(len, found["signs"]))],
    }
