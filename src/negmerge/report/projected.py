"""The retain projection in words: on which rows, how strongly, and what it did to the effect of the vector."""

from statistics import geometric_mean
from typing import Any

from negmerge.report import numbers
from negmerge.report.inputs import Json


def projection_of(row: Json) -> Json | None:
    """Return what a projection did to a row's vector, of the first seed where there are several; None without one."""
    source = row if row.get("projection") or not row.get("seeds") else row["seeds"][0]
    found: Json | None = source.get("projection")
    return found if found and found.get("layers") else None


def short_text(row: Json) -> str:
    """Return strength and rows of a row's projection in a few words; nothing without one.

    >>> retain = {"rows": 600, "about": "retain images"}
    >>> short_text({"projection": {"strength": 10.0, "rows": {"retain": retain}, "layers": [{}]}})
    'projected: λ 10, 600 retain images'
    """
    done = projection_of(row)
    if done is None:
        return ""
    kept = done["rows"]["retain"]
    return f"projected: λ {numbers.setting(done['strength'])}, {numbers.count(kept['rows'])} {kept['about']}"


def sentences(row: Json) -> list[str]:
    """Return what the projection of a row did, one sentence or two each."""
    done = projection_of(row)
    if done is None:
        return []
    kept, asked = done["rows"]["retain"], done["rows"]["forget"]
    said = [
        f"Before α was chosen, each layer's share of the vector was stripped of what it does to "
        f"{numbers.count(kept['rows'])} {kept['about']}, as far as its effect on {numbers.count(asked['rows'])} "
        f"{asked['about']} allows. No label was read and nothing was trained for it."
    ]
    ratios = [(one["before"], one["after"]) for one in done["layers"] if one.get("before") and one.get("after")]
    if ratios:
        before, after = (geometric_mean(values) for values in zip(*ratios, strict=True))
        said.append(
            f"In the mean over layers the vector moved the outputs of what stays {numbers.share(before)} as far as "
            f"those of what goes; afterwards {numbers.share(after)}."
        )
    tried = done.get("strengths") or []
    if len(tried) > 1:
        every = numbers.listed([numbers.setting(one["strength"]) for one in tried])
        said.append(
            f"Of the strengths {every}, λ = {numbers.setting(done['strength'])} was chosen, by what chooses α; of "
            "equals the smallest."
        )
    without = done.get("without") or []
    if without:
        fate = "left out of the vector" if done.get("others") == "leave-out" else "kept as they were"
        said.append(
            f"Tensors whose inputs could not be seen were {fate}: {numbers.count(len(without))}, such as {without[0]}."
        )
    return said


def strengths_table(row: Json) -> list[dict[str, Any]]:
    """Return for each strength that was tried the texts of λ, α, forget and retain, and whether it was chosen."""
    done = projection_of(row) or {}
    return [
        {
            "strength": numbers.setting(one["strength"]),
            "alpha": numbers.alpha(one.get("alpha")),
            "forget": numbers.percent(one.get("forget")),
            "retain": numbers.percent(one.get("retain")),
            "chosen": one["strength"] == done["strength"],
        }
        for one in done.get("strengths") or []
    ]
