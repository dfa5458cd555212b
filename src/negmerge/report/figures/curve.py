"""The α curve: forget and retain accuracy over the scale of the negation, the floor and the chosen point."""

from dataclasses import dataclass

from negmerge.report.figures.svg import FORGET, GRID, INK, MUTED, RETAIN, SURFACE, drawing, inline
from negmerge.report.inputs import Json
from negmerge.report.numbers import alpha, percent_sign

HELD_OUT = "validation_forget"
# Score, colour, line style and name of each line.
LINES = (
    ("retain", RETAIN, "-", "retain"),
    ("forget", FORGET, "-", "forget"),
    (HELD_OUT, FORGET, ":", "held-out forget"),
)
BEYOND = 1.6  # the axis ends at the first evaluated α beyond this multiple of the chosen one


@dataclass(frozen=True)
class Curve:
    """The evaluated points, sorted by α; `target` is the forget accuracy of a retrained model, if known."""

    points: list[Json]
    chosen: float | None
    floor: float | None
    target: float | None = None


def curves_of(row: Json, target: float | None = None) -> list[Curve]:
    """Return the curves of a row: one, or one for each seed."""
    curves = []
    for one in row.get("seeds") or [row]:
        points = [
            point
            for point in one.get("curve") or []
            if all(point.get(key) is not None for key in ("alpha", "forget", "retain"))
        ]
        if len(points) > 1:
            curves.append(Curve(sorted(points, key=lambda p: p["alpha"]), one.get("alpha"), one.get("floor"), target))
    return curves or (curves_of({**row, "seeds": None}, target) if row.get("seeds") else [])


def left_out(curves: list[Curve]) -> int:
    """Return how many evaluated points lie beyond the end of the axis."""
    end = _end(curves)
    return sum(point["alpha"] > end for curve in curves for point in curve.points)


def curve_figure(curves: list[Curve], prefix: str, title: str, *, small: bool = False) -> str:
    """Draw the curves of one method; several seeds are thin lines with one dot each."""
    width, height = (300, 190) if small else (420, 300)
    end = _end(curves)
    with drawing(width, height) as figure:
        axes = figure.add_axes((0.14 if small else 0.11, 0.2 if small else 0.15, 0.62, 0.72 if small else 0.79))
        axes.grid(axis="y")
        axes.tick_params(length=0, labelsize=10.5 if small else 12)
        axes.set_xlim(0, end * 1.02)
        axes.set_ylim(*_limits(curves, end))
        axes.set_xlabel("α", fontsize=12)
        single = len(curves) == 1
        for curve in curves:
            shown = [point for point in curve.points if point["alpha"] <= end]
            alphas = [point["alpha"] for point in shown]
            for key, colour, style, _ in _lines(curve):
                axes.plot(
                    alphas,
                    [point[key] for point in shown],
                    color=colour,
                    linestyle=style,
                    linewidth=2 if single else 1.2,
                    marker="o",
                    markersize=0 if not single else 2.5 if small else 3.5,
                )
            _mark_choice(axes, curve, single, small)
        _label_ends(axes, curves[0], end, small)
        for level, colour in ((curves[0].floor, MUTED), (curves[0].target, FORGET)):
            if level is not None:
                axes.axhline(level, color=colour, linewidth=1.1, linestyle=(0, (4, 3)))
        return inline(figure, prefix, _alt(title, curves))


def _mark_choice(axes: object, curve: Curve, single: bool, small: bool) -> None:
    at = next((point for point in curve.points if point["alpha"] == curve.chosen), None)
    if at is None:
        return
    draw = axes
    if single:
        draw.axvline(at["alpha"], color=GRID, linewidth=1.2)  # type: ignore[attr-defined]
    for key, colour, _, _ in _lines(curve):
        draw.plot(  # type: ignore[attr-defined]
            [at["alpha"]],
            [at[key]],
            marker="o",
            linestyle="none",
            markersize=6 if small or not single else 9,
            markerfacecolor=colour,
            markeredgecolor=SURFACE,
            markeredgewidth=1.5,
            zorder=5,
            clip_on=False,
        )


def _label_ends(axes: object, curve: Curve, end: float, small: bool) -> None:
    """Write the names beside the lines, pushed apart where they would touch."""
    last = [point for point in curve.points if point["alpha"] <= end][-1]
    wanted = [(last[key], name, colour) for key, colour, _, name in _lines(curve)]
    names = [text for _, text, _ in wanted]
    if curve.floor is not None:
        wanted.append((curve.floor, f"floor {curve.floor:.1f}", MUTED))
    if curve.target is not None:
        wanted.append((curve.target, "retrained" if small else f"retrained {curve.target:.1f}", FORGET))
    low, high = axes.get_ylim()  # type: ignore[attr-defined]
    step = (high - low) * (0.11 if small else 0.06)
    placed: list[float] = []
    for value, text, colour in sorted(wanted, key=lambda one: one[0]):
        y = max([value, *(p + step for p in placed[-1:])])
        placed.append(y)
        axes.annotate(  # type: ignore[attr-defined]
            text,
            (1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=11 if small else 12.5,
            fontweight="bold" if text in names else "normal",
            annotation_clip=False,
        )
    if curve.chosen is not None:
        axes.annotate(  # type: ignore[attr-defined]
            f"α = {alpha(curve.chosen)}",
            (curve.chosen, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=INK,
            fontsize=11 if small else 12.5,
        )


def _lines(curve: Curve) -> list[tuple[str, str, str, str]]:
    """Return the lines whose score every point has."""
    return [line for line in LINES if all(point.get(line[0]) is not None for point in curve.points)]


def _end(curves: list[Curve]) -> float:
    ends = []
    for curve in curves:
        reach = BEYOND * (curve.chosen or 0.0) or curve.points[-1]["alpha"]
        beyond = [point["alpha"] for point in curve.points if point["alpha"] >= reach]
        ends.append(beyond[0] if beyond else curve.points[-1]["alpha"])
    return float(max(ends))


def _limits(curves: list[Curve], end: float) -> tuple[float, float]:
    values = [
        point[key] for curve in curves for point in curve.points if point["alpha"] <= end for key, *_ in _lines(curve)
    ]
    values += [level for curve in curves for level in (curve.floor, curve.target) if level is not None]
    low, high = min(values), max(values)
    margin = max(1.0, 0.06 * (high - low))
    return (max(low - margin, -3.0), min(high + margin, 103.0))


def _alt(title: str, curves: list[Curve]) -> str:
    text = f"{title}: forget and retain over α, in %."
    for curve in curves:
        at = next((point for point in curve.points if point["alpha"] == curve.chosen), None)
        first = curve.points[0]
        text += f" At α = 0 forget {percent_sign(first['forget'])}, retain {percent_sign(first['retain'])}"
        if at is not None:
            values = ", ".join(f"{name} {percent_sign(at[key])}" for key, _, _, name in reversed(_lines(curve)))
            text += f"; at the chosen α = {alpha(curve.chosen)} {values}"
        text += "." if curve.floor is None else f"; floor {percent_sign(curve.floor)}."
    return text
