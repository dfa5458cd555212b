"""What forgetting costs: minutes against the average gap, one dot for each method."""

from dataclasses import dataclass

from negmerge.report.figures.svg import ACCENT, INK, MUTED, SURFACE, drawing, inline
from negmerge.report.inputs import Json, rows_of
from negmerge.report.numbers import percent, shorten

LEAST = 0.01  # minutes: what takes less stands here, since the axis is logarithmic
LINE = 0.045  # of the height of the axes, between two labels


@dataclass(frozen=True)
class Cost:
    """One method: its minutes, the training of pool and candidates included, and its gap in percentage points."""

    label: str
    minutes: float
    gap: float
    main: bool


def costs_of(results: Json, main: str | None) -> list[Cost]:
    """Return the methods that have both a time and a gap, in the order of the file; doing nothing costs nothing."""
    found = []
    for name, row in rows_of(results):
        if name not in ("base", "reference") and row.get("gap") is not None and row.get("seconds"):
            found.append(Cost(str(row.get("label") or name), row["seconds"] / 60.0, row["gap"], name == main))
    return found


def cost_figure(costs: list[Cost], before: float | None, prefix: str) -> str:
    """Draw the methods over a logarithmic axis of minutes; `before` is the gap of the base, a dashed line."""
    with drawing(640, 420) as figure:
        axes = figure.add_axes((0.08, 0.13, 0.66, 0.83))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.grid(axis="y")
        axes.tick_params(length=0, which="both")
        axes.set_xlabel("minutes", fontsize=12)
        axes.set_ylabel("average gap", fontsize=12)
        top = max([cost.gap for cost in costs] + ([before] if before is not None else []))
        axes.set_ylim(0, top * 1.08 or 1.0)
        if before is not None:
            axes.axhline(before, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
        for cost in costs:
            axes.plot(
                [max(cost.minutes, LEAST)],
                [cost.gap],
                marker="o",
                linestyle="none",
                markersize=9 if cost.main else 6,
                markerfacecolor=ACCENT if cost.main else INK,
                markeredgecolor=SURFACE,
                zorder=5 if cost.main else 4,
            )
        _label(axes, costs)
        return inline(figure, prefix, _alt(costs, before))


def _label(axes: object, costs: list[Cost]) -> None:
    """Write the names in a column at the right, in the order of their gaps, each with a thin line to its dot."""
    low, high = axes.get_ylim()  # type: ignore[attr-defined]
    ordered = sorted(costs, key=lambda cost: (cost.gap, cost.label))
    heights = _spread([cost.gap / (high - low) for cost in ordered])
    for cost, height in zip(ordered, heights, strict=True):
        axes.annotate(  # type: ignore[attr-defined]
            shorten(cost.label, 24),
            (max(cost.minutes, LEAST), cost.gap),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=ACCENT if cost.main else INK,
            fontsize=11,
            fontweight="bold" if cost.main else "normal",
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "relpos": (0.0, 0.5)},
            annotation_clip=False,
        )


def _spread(wanted: list[float]) -> list[float]:
    """Return rising heights at least a line apart: each pushed up by the one below, then down from the top."""
    up: list[float] = []
    for height in wanted:
        up.append(max([height, *(below + LINE for below in up[-1:])]))
    down: list[float] = []
    for height in reversed(up):
        down.append(min([height, *(above - LINE for above in (down[-1:] or [1.0 + LINE]))]))
    return down[::-1]


def _alt(costs: list[Cost], before: float | None) -> str:
    text = "Minutes against average gap."
    if before is not None:
        text += f" The original model's gap is {percent(before)}."
    for cost in costs:
        text += f" {cost.label}: {cost.minutes:.1f} minutes, gap {percent(cost.gap)}."
    return text
