"""How fast forgotten rows come back from a few of them: the judged model beside Retrain and the base."""

from collections.abc import Mapping, Sequence

from negmerge.report.figures.svg import ACCENT, FORGET, INK, MUTED, drawing, inline

LINES = {"base": ("before", MUTED), "model": ("now", FORGET), "reference": ("retrained", ACCENT)}


def relearnt_figure(curves: Mapping[str, Sequence[float]], every: int, what: str, prefix: str) -> str:
    """Draw curves of `base`, `model` and `reference`, in %, a point each `every` steps; `what` says of what."""
    with drawing(470, 300) as figure:
        axes = figure.add_axes((0.13, 50 / 300, 0.84, 218 / 300))
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.set_ylim(-3, 103)
        longest = max(len(curve) for curve in curves.values()) - 1
        axes.set_xlim(0, max(1, longest * every))
        axes.set_xlabel("steps of training on a few of them")
        axes.set_ylabel(f"{what}, %")
        place = 0.0
        for role, (name, colour) in LINES.items():
            steps = [i * every for i in range(len(curves[role]))]
            style = "--" if role == "reference" else "-"
            axes.plot(steps, curves[role], color=colour, linewidth=2, linestyle=style, clip_on=False)
            shown = f"{'- -' if style == '--' else '—'} {name}"
            axes.annotate(shown, (place, 1.0), (0, 8), xycoords="axes fraction", textcoords="offset points",
                          color=INK if role == "base" else colour, fontsize=12, annotation_clip=False)  # fmt: skip
            place += 0.28
        return inline(figure, prefix, _alt(curves, longest * every, what))


def _alt(curves: Mapping[str, Sequence[float]], steps: int, what: str) -> str:
    told = [f"{name} {curves[role][0]:.0f} % to {curves[role][-1]:.0f} %" for role, (name, _) in LINES.items()]
    return f"{what[0].upper()}{what[1:]}, from the start to {steps} steps of training: {', '.join(told)}."
