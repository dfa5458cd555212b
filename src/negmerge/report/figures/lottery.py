"""The lottery: what each member would have done alone, beside the merged vector."""

from collections.abc import Sequence
from dataclasses import dataclass

from negmerge.report.figures.svg import ACCENT, INK, MUTED, SURFACE, drawing, inline
from negmerge.report.numbers import percent_sign


@dataclass(frozen=True)
class Ticket:
    """What selection saw of one vector at the α chosen for it, in percent."""

    name: str
    forget: float
    retain: float
    merged: bool = False


def lottery_figure(tickets: Sequence[Ticket], prefix: str, gone: str, kept: str) -> str:
    """Draw one dot for each member, what is forgotten against what is kept, and a larger one for what was merged."""
    with drawing(420, 300) as figure:
        axes = figure.add_axes((0.13, 0.15, 0.8, 0.79))
        axes.grid()
        axes.tick_params(length=0)
        axes.set_xlabel(f"{gone}, %")
        axes.set_ylabel(f"{kept}, %")
        axes.set_xlim(*_limits([one.forget for one in tickets]))
        axes.set_ylim(*_limits([one.retain for one in tickets]))
        for one in sorted(tickets, key=lambda one: one.merged):
            axes.plot(
                [one.forget],
                [one.retain],
                marker="o",
                linestyle="none",
                markersize=10 if one.merged else 6,
                markerfacecolor=ACCENT if one.merged else INK,
                markeredgecolor=SURFACE,
                clip_on=False,
            )
        for text, place, colour in (("● merged", 0.0, ACCENT), ("● one member alone", 0.22, MUTED)):
            axes.annotate(text, (place, 1.0), (0, 6), xycoords="axes fraction", textcoords="offset points",
                          color=colour, fontsize=12, annotation_clip=False)  # fmt: skip
        return inline(figure, prefix, _alt(tickets))


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis with room around the values, hardly beyond 0 and 100."""
    room = max(1.0, 0.12 * (max(values) - min(values)))
    return max(-0.3, min(values) - room), min(100.3, max(values) + room)


def _alt(tickets: Sequence[Ticket]) -> str:
    told = [
        f"{'merged: ' if one.merged else ''}{one.name} {percent_sign(one.forget)} and {percent_sign(one.retain)}"
        for one in tickets
    ]
    return f"Forget and retain, in %, of each member alone, and of what was merged: {'; '.join(told)}."
