"""What forgotten rows are taken for: before, now, and by a model that was retrained."""

from collections.abc import Mapping, Sequence

from negmerge.report.figures.svg import ACCENT, FORGET, INK, MUTED, drawing, inline
from negmerge.report.numbers import percent_sign, shorten

MOST = 12  # answers that are drawn: those most often given
ROLES = (("base", "before", MUTED), ("model", "now", FORGET), ("reference", "retrained", ACCENT))

Shares = Mapping[str, Sequence[float]]


def pick(labels: Sequence[str], shares: Shares) -> list[int]:
    """Return which answers to draw, those that anybody gave: the most frequent first, of equals in their order."""
    most = [max(of[i] for of in shares.values()) for i in range(len(labels))]
    return sorted((i for i in range(len(labels)) if most[i] > 0), key=lambda i: -most[i])[:MOST]


def answers_figure(labels: Sequence[str], shares: Shares, prefix: str) -> str:
    """Draw for each answer a bar of each model; `shares` are percentages by role."""
    shown = pick(labels, shares)
    roles = [(role, name, colour) for role, name, colour in ROLES if role in shares]
    thick = 9
    step = thick * len(roles) + 10
    height = 30 + step * len(shown) + 36
    with drawing(420, height) as figure:
        axes = figure.add_axes((0.26, 36 / height, 0.68, step * len(shown) / height))
        axes.set_xlim(0, 104)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_xlabel("of them get this answer, %")
        for y, i in enumerate(shown):
            axes.text(-0.03, y, shorten(labels[i], 18), transform=axes.get_yaxis_transform(), ha="right", va="center",
                      color=INK)  # fmt: skip
            for k, (role, _, colour) in enumerate(roles):
                place = y + (k - (len(roles) - 1) / 2) * thick / step
                axes.barh([place], [shares[role][i]], height=0.8 * thick / step, color=colour, linewidth=0)
        for k, (_, name, colour) in enumerate(roles):
            axes.annotate(f"■ {name}", (0.27 * k, 1.0), (0, 6), xycoords="axes fraction", textcoords="offset points",
                          color=colour, fontsize=12, annotation_clip=False)  # fmt: skip
        return inline(figure, prefix, _alt(labels, shares, shown))


def _alt(labels: Sequence[str], shares: Shares, shown: Sequence[int]) -> str:
    names = {role: name for role, name, _ in ROLES}
    told = [
        f"{labels[i]}: " + ", ".join(f"{names[role]} {percent_sign(of[i])}" for role, of in shares.items())
        for i in shown
    ]
    return f"Answers to what was to be forgotten. {'; '.join(told)}."
