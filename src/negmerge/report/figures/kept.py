"""What is kept against what comes back: every α that was tested for it, one line for each vector."""

from collections.abc import Sequence
from dataclasses import dataclass

from negmerge.report.figures.svg import ACCENT, AGAINST, FORGET, INK, MUTED, RETAIN, SURFACE, drawing, inline
from negmerge.report.numbers import alpha, percent_sign, shorten

COLOURS = (FORGET, RETAIN, INK, AGAINST, MUTED)
STYLES = ("-", "--", ":")
PASSES = 0.1


@dataclass(frozen=True)
class Point:
    """A tested α: what comes back (0 as of Retrain, 1 as of the base), and the retain score in percent."""

    alpha: float
    back: float
    retain: float
    chosen: bool = False


@dataclass(frozen=True)
class Trail:
    """The tested α of one vector, the smallest first."""

    name: str
    points: tuple[Point, ...]


def kept_figure(trails: Sequence[Trail], prefix: str, kept: str) -> str:
    """Draw what is kept over what comes back; α grows along a line, and the chosen one of a row is a large dot."""
    points = [point for trail in trails for point in trail.points]
    with drawing(470, 340 + 18 * len(trails)) as figure:
        whole = 340 + 18 * len(trails)
        axes = figure.add_axes((0.14, 46 / whole, 0.83, 268 / whole))
        axes.grid(axis="y")
        axes.tick_params(length=0)
        low = min(0.0, *(point.back for point in points))
        axes.set_xlim(low - 0.03, 1.03)
        room = max(0.5, 0.15 * (max(p.retain for p in points) - min(p.retain for p in points)))
        axes.set_ylim(min(p.retain for p in points) - room, min(100.2, max(p.retain for p in points) + room))
        axes.axvspan(low - 0.03, PASSES, color=ACCENT, alpha=0.1, linewidth=0)
        axes.set_xlabel("what comes back: 0 as of a retrained model, 1 as before")
        axes.set_ylabel(f"{kept}, %")
        for i, trail in enumerate(trails):
            colour, style = COLOURS[i % len(COLOURS)], STYLES[i // len(COLOURS) % len(STYLES)]
            axes.plot([p.back for p in trail.points], [p.retain for p in trail.points], color=colour, linewidth=1.8,
                      linestyle=style, marker="o", markersize=4)  # fmt: skip
            for point in trail.points:
                if point.chosen:
                    axes.plot([point.back], [point.retain], marker="o", markersize=10, markerfacecolor=colour,
                              markeredgecolor=SURFACE, linestyle="none", zorder=5, clip_on=False)  # fmt: skip
            axes.annotate(f"{'—' if style == '-' else '- -'} {shorten(trail.name, 60)}", (0.0, 1.0),
                          (0, 6 + 18 * (len(trails) - 1 - i)), xycoords="axes fraction", textcoords="offset points",
                          color=colour, fontsize=12, annotation_clip=False)  # fmt: skip
        return inline(figure, prefix, _alt(trails))


def _alt(trails: Sequence[Trail]) -> str:
    told = [
        f"{trail.name}: "
        + ", ".join(
            f"α {alpha(p.alpha)}{' (chosen)' if p.chosen else ''}: {p.back:.2f} back, {percent_sign(p.retain)} kept"
            for p in trail.points
        )
        for trail in trails
    ]
    return f"What is kept against what comes back. {'; '.join(told)}."
