"""What the vector did to inputs of each layer, before and after it was projected."""

from negmerge.report.figures.layers import short_names
from negmerge.report.figures.svg import ACCENT, INK, MUTED, SURFACE, drawing, inline
from negmerge.report.inputs import Json
from negmerge.report.numbers import share

MOST = 48  # layers in the figure; of more, those that changed outputs most


def pick(layers: list[Json]) -> list[Json]:
    """Return the layers to show, in their own order: all that act on forget inputs, or those that did so most."""
    known = [one for one in layers if one.get("before") is not None and one.get("after") is not None]
    ranked = sorted(known, key=lambda one: -(one.get("forget_before") or 0.0))[:MOST]
    chosen = {id(one) for one in ranked}
    return [one for one in known if id(one) in chosen]


def projected_figure(layers: list[Json], prefix: str) -> str:
    """Draw for each layer the ratio of what the change does to retain and to forget outputs, before and after."""
    height = 26 + 18 * len(layers) + 34
    before = [100 * one["before"] for one in layers]
    after = [100 * one["after"] for one in layers]
    reach = max([*before, *after, 1e-9]) * 1.12
    with drawing(520, height) as figure:
        axes = figure.add_axes((0.4, 34 / height, 0.56, 18 * len(layers) / height))
        axes.set_xlim(0, reach)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_xlabel("effect on what stays, % of that on what goes")
        for y, (name, old, new) in enumerate(zip(short_names(layers), before, after, strict=True)):
            axes.plot([old, new], [y, y], color=MUTED, linewidth=1.2, zorder=2)
            axes.text(-0.02, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=11)
        places = range(len(layers))
        for values, colour, size in ((before, INK, 5), (after, ACCENT, 6)):
            axes.plot(
                values,
                places,
                linestyle="none",
                marker="o",
                markersize=size,
                markerfacecolor=colour,
                markeredgecolor=SURFACE,
                zorder=3,
            )
        for text, place, side, colour in (("● after", 0.0, "left", ACCENT), ("● before", 1.0, "right", INK)):
            axes.annotate(
                text,
                (place, 1.0),
                xycoords="axes fraction",
                xytext=(0, 8),
                textcoords="offset points",
                ha=side,
                color=colour,
                fontsize=11,
                annotation_clip=False,
            )
        return inline(figure, prefix, _alt(layers))


def _alt(layers: list[Json]) -> str:
    parts = [f"{one.get('name')} {share(one['before'])} before, {share(one['after'])} after" for one in layers]
    return f"Effect on retain outputs relative to that on forget outputs, by layer: {'; '.join(parts)}."
