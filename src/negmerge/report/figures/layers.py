"""Consensus in each layer: the share of its elements on whose sign the members agree."""

import math

from negmerge.report.figures.svg import ACCENT, INK, MUTED, drawing, inline
from negmerge.report.inputs import Json
from negmerge.report.numbers import share, shorten

MOST = 48  # layers in the figure; of more, the largest are shown


def chance_level(members: int, threshold: float) -> float:
    """Return the share of elements on which so many independent signs would agree to the threshold.

    >>> chance_level(9, 1.0) == 2**-8
    True
    """
    needed = math.ceil(threshold * members - 1e-9)
    first = max(needed, members // 2 + 1)  # a tie keeps nothing
    return float(sum(math.comb(members, k) for k in range(first, members + 1)) / 2 ** (members - 1))


def pick(layers: list[Json]) -> list[Json]:
    """Return the layers to show, in their own order: all that hold elements, or the largest."""
    known = [layer for layer in layers if layer.get("elements") and layer.get("kept") is not None]
    ranked = sorted(known, key=lambda layer: -layer["elements"])[:MOST]
    chosen = {id(layer) for layer in ranked}
    return [layer for layer in known if id(layer) in chosen]


def layers_figure(layers: list[Json], chance: float | None, prefix: str) -> str:
    """Draw one bar for each layer, and a line where independent signs would be."""
    values = [100 * layer["kept"] / layer["elements"] for layer in layers]
    level = None if chance is None else 100 * chance
    reach = max([*values, level or 0.0, 1e-9]) * 1.2
    height = 26 + 18 * len(layers) + 34
    with drawing(420, height) as figure:
        axes = figure.add_axes((0.42, 34 / height, 0.54, 18 * len(layers) / height))
        axes.set_xlim(0, reach)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.grid(axis="x")
        if reach > 100:
            axes.set_xticks(range(0, 101, 20))
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_xlabel("elements kept, %")
        axes.barh(range(len(layers)), values, height=0.62, color=ACCENT, linewidth=0)
        for y, (name, value) in enumerate(zip(short_names(layers), values, strict=True)):
            axes.text(
                -0.02,
                y,
                name,
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                fontsize=11,
            )
            axes.text(value + reach * 0.012, y, f"{value:.1f}", va="center", fontsize=11, color=INK)
        if level is not None:
            axes.axvline(level, color=INK, linewidth=1.4, linestyle=(0, (3, 2)))
            right = level > 0.7 * reach
            axes.annotate(
                f"chance {share(chance)}",
                (level, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-4 if right else 0, 8),
                textcoords="offset points",
                ha="right" if right else "left",
                va="center",
                color=MUTED,
                annotation_clip=False,
            )
        return inline(figure, prefix, _alt(layers, chance))


def short_names(layers: list[Json]) -> list[str]:
    """Return short names: the parts that all begin with are left out, so that what differs can be seen."""
    parts = [str(layer.get("name") or "–").split(".") for layer in layers]
    same = 0
    while len(parts) > 1 and all(len(p) > same + 1 and p[: same + 1] == parts[0][: same + 1] for p in parts):
        same += 1
    return [shorten(("…" if same else "") + ".".join(p[same:]), 28) for p in parts]


def _alt(layers: list[Json], chance: float | None) -> str:
    parts = [f"{layer.get('name')} {share(layer['kept'] / layer['elements'])}" for layer in layers]
    return f"Share of elements kept in each layer: {'; '.join(parts)}. Chance level: {share(chance)}."
