"""All tests on one scale, from Retrain to the base: a dot with its interval, or that the test can't tell."""

from collections.abc import Sequence
from dataclasses import replace

from negmerge.report.evidence import CANNOT, Line
from negmerge.report.figures.svg import ACCENT, AGAINST, FORGET, INK, MUTED, drawing, inline
from negmerge.report.numbers import shorten

REACH = 0.1  # of the scale, that an interval must reach
LOWEST, HIGHEST = -0.35, 1.15  # ends of the axis: what lies outside is drawn at the end, as an arrow
COLOURS = {"holds": ACCENT, "fails": FORGET, "beyond": AGAINST, "described": INK, "silent": MUTED}


def scale_figure(lines: Sequence[Line], prefix: str, zero: str = "retrained") -> str:
    """Draw the tests from top to bottom in their order; `zero` is what stands at 0, in a word."""
    with drawing(470, 92 + 34 * len(lines)) as figure:
        height = 34 * len(lines) / (92 + 34 * len(lines))
        axes = figure.add_axes((0.25, 48 / (92 + 34 * len(lines)), 0.72, height))
        axes.set_xlim(LOWEST, HIGHEST)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.axvspan(LOWEST, REACH, color=ACCENT, alpha=0.1, linewidth=0)
        for place in (0.0, 1.0):
            axes.axvline(place, color=MUTED, linewidth=1.1)
        axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0", "0.25", "0.5", "0.75", "1"])
        axes.set_yticks(range(len(lines)), [shorten(line.title, 18) for line in lines])
        axes.tick_params(length=0, labelsize=12)
        for label in axes.get_yticklabels():
            label.set_color(INK)
        axes.spines["left"].set_visible(False)
        for place, text in ((0.0, zero), (1.0, "before")):
            axes.annotate(
                text, (place, 1.0), (0, 8), xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
                color=MUTED, fontsize=12,
            )  # fmt: skip
        for i, line in enumerate(lines):
            _draw(axes, i, line)
        return inline(figure, prefix, _alt(lines, zero))


def named(line: Line, title: str) -> Line:
    """Return a line under another title."""
    return replace(line, title=title)


def _draw(axes: object, i: int, line: Line) -> None:
    if line.position is None or line.low is None or line.high is None:
        axes.text(  # type: ignore[attr-defined]
            0.5, i, CANNOT if line.state != "beyond" else "beyond the retrained model", ha="center", va="center",
            color=COLOURS.get(line.state, MUTED), fontsize=12,
        )  # fmt: skip
        return
    colour = COLOURS[line.state]
    for one in line.controls:
        place = min(HIGHEST, max(LOWEST, one))
        axes.plot([place], [i], marker="o", markersize=6, markerfacecolor="none", markeredgecolor=MUTED)  # type: ignore[attr-defined]
    if line.bar > REACH and line.bar < HIGHEST:
        axes.plot([line.bar, line.bar], [i - 0.3, i + 0.3], color=ACCENT, linewidth=1.5)  # type: ignore[attr-defined]
    low, position, high = (min(HIGHEST, max(LOWEST, value)) for value in (line.low, line.position, line.high))
    axes.plot([low, high], [i, i], color=colour, linewidth=3)  # type: ignore[attr-defined]
    outside = {line.position < LOWEST: "<", line.position > HIGHEST: ">"}.get(True, "o")
    axes.plot([position], [i], marker=outside, markersize=9, color=colour, linestyle="none", clip_on=False)  # type: ignore[attr-defined]


def _alt(lines: Sequence[Line], zero: str) -> str:
    ends = "the retrained model" if zero == "retrained" else zero
    told = [f"{line.title}: {line.place}" + (", beyond Retrain" if line.state == "beyond" else "") for line in lines]
    return f"Position of each test between {ends} (0) and the model from before (1). " + "; ".join(told) + "."
