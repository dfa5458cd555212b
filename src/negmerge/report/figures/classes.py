"""A number of each class, or group, before and after: a dot for each, joined by a line."""

from dataclasses import dataclass

from negmerge.report.figures.svg import FORGET, INK, MUTED, RETAIN, SURFACE, drawing, inline
from negmerge.report.numbers import percent_sign, shorten
from negmerge.report.scores import Groups

MOST = 40  # classes in the figure; of more, the forgotten and the most changed are shown


@dataclass(frozen=True)
class ClassChange:
    """One class: accuracy on its test rows, or what else is told of it, before, after, and in the retrained model."""

    name: str
    before: float
    after: float
    target: float | None
    forgotten: bool


def pick(changes: list[ClassChange]) -> list[ClassChange]:
    """Return the classes to show, in their own order: all, or the forgotten and the most changed."""
    if len(changes) <= MOST:
        return changes
    ranked = sorted(changes, key=lambda c: (not c.forgotten, -abs(c.after - c.before)))
    chosen = {id(change) for change in ranked[:MOST]}
    return [change for change in changes if id(change) in chosen]


def classes_figure(changes: list[ClassChange], prefix: str, told: Groups) -> str:
    """Draw one line for each class; forgotten classes are marked by colour, weight and a word."""
    with_target = any(change.target is not None for change in changes)
    height = 34 + 19 * len(changes) + 22
    with drawing(420, height) as figure:
        axes = figure.add_axes((0.37, 34 / height, 0.59, 19 * len(changes) / height))
        axes.set_xlim(_low(changes) - 2, 102)
        axes.set_ylim(len(changes) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_xlabel(f"{told.of}, %")
        for y, change in enumerate(changes):
            colour = FORGET if change.forgotten else RETAIN
            axes.plot([change.before, change.after], [y, y], color=colour, linewidth=2.2, alpha=0.55)
            axes.plot(
                [change.before],
                [y],
                "o",
                markersize=7,
                markerfacecolor=SURFACE,
                markeredgecolor=colour,
                markeredgewidth=1.6,
                clip_on=False,
            )
            axes.plot([change.after], [y], "o", markersize=7, color=colour, clip_on=False, markeredgewidth=0)
            if with_target and change.target is not None:
                axes.plot([change.target], [y], "|", markersize=13, color=INK, markeredgewidth=1.6, clip_on=False)
            axes.text(
                -0.03,
                y,
                shorten(change.name, 12 if change.forgotten else 20) + (" (forget)" if change.forgotten else ""),
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="center",
                color=FORGET if change.forgotten else INK,
                fontweight="bold" if change.forgotten else "normal",
            )
        _legend(axes, with_target)
        return inline(figure, prefix, _alt(changes, told))


def _low(changes: list[ClassChange]) -> float:
    """Return where the axis starts: at 0, or higher when all is far from it."""
    values = [v for c in changes for v in (c.before, c.after, c.target) if v is not None]
    return 0.0 if min(values) < 50 else 10.0 * (min(values) // 10 - 1)


def _legend(axes: object, with_target: bool) -> None:
    entries = [("before", SURFACE, "o"), ("after", MUTED, "o")]
    if with_target:
        entries.append(("retrained", INK, "|"))
    for i, (text, fill, marker) in enumerate(entries):
        x = 0.01 + 0.3 * i
        axes.plot(  # type: ignore[attr-defined]
            [x],
            [1.0],
            marker=marker,
            linestyle="none",
            transform=_above(axes),
            markersize=11 if marker == "|" else 7,
            markerfacecolor=fill,
            markeredgecolor=INK if marker == "|" else MUTED,
            markeredgewidth=1.5,
            clip_on=False,
        )
        axes.text(x + 0.045, 1.0, text, transform=_above(axes), va="center", fontsize=11.5, color=MUTED)  # type: ignore[attr-defined]


def _above(axes: object) -> object:
    from matplotlib.transforms import ScaledTranslation

    shift = ScaledTranslation(0, 12 / 72, axes.figure.dpi_scale_trans)  # type: ignore[attr-defined]
    return axes.transAxes + shift  # type: ignore[attr-defined]


def _alt(changes: list[ClassChange], told: Groups) -> str:
    parts = [
        f"{change.name}{' (to forget)' if change.forgotten else ''} "
        f"{percent_sign(change.before)} to {percent_sign(change.after)}"
        for change in changes
    ]
    return f"Each {told.one}, {told.of}, before and after: " + "; ".join(parts) + "."
