"""How alike the members are: the cosine of every pair of task vectors, as shaded squares."""

from negmerge.report.figures.svg import ACCENT, AGAINST, INK, MUTED, drawing, inline

SHADES = 10
MOST_WRITTEN = 10  # members up to which the values are written into the squares
MOST = 64  # members in the figure

Matrix = list[list[float | None]]


def cosine_figure(cosine: Matrix, prefix: str) -> str:
    """Draw the lower triangle of the matrix; squares of one shade are one path, to keep the page small."""
    n = min(len(cosine), MOST)
    with drawing(420, 385) as figure:
        axes = figure.add_axes((0.09, 0.11, 0.87, 0.86))
        axes.set_xlim(-0.5, n - 0.5)
        axes.set_ylim(n - 0.5, -0.5)
        axes.set_aspect("equal", adjustable="box", anchor="W")
        for spine in axes.spines.values():
            spine.set_visible(False)
        step = max(1, -(-n // 16))
        axes.set_xticks(range(0, n, step))
        axes.set_yticks(range(0, n, step))
        axes.tick_params(length=0, labelsize=11)
        axes.set_xlabel("member")
        _draw_squares(axes, cosine, n)
        if n <= MOST_WRITTEN:
            for i, j, value in _below_diagonal(cosine, n):
                axes.text(j, i, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=11, color=INK)
        _draw_scale(axes)
        return inline(figure, prefix, _alt(cosine, n))


def _draw_squares(axes: object, cosine: Matrix, n: int) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    squares: dict[tuple[str, int], list[Path]] = {}
    for i, j, value in _below_diagonal(cosine, n):
        shade = min(SHADES, max(0, round(abs(value) * SHADES)))
        corners = [(j - 0.47, i - 0.47), (j + 0.47, i - 0.47), (j + 0.47, i + 0.47), (j - 0.47, i + 0.47)]
        key = (ACCENT if value >= 0 else AGAINST, shade)
        squares.setdefault(key, []).append(Path([*corners, corners[0]], closed=True))
    for (colour, shade), paths in sorted(squares.items()):
        opacity = 0.06 + 0.64 * shade / SHADES
        patch = PathPatch(Path.make_compound_path(*paths), facecolor=colour, alpha=opacity, linewidth=0)
        axes.add_patch(patch)  # type: ignore[attr-defined]


def _draw_scale(axes: object) -> None:
    from matplotlib.patches import Rectangle

    for k, value in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
        opacity = 0.06 + 0.64 * abs(value)
        colour = ACCENT if value >= 0 else AGAINST
        left = 0.62 + 0.072 * k
        axes.add_patch(  # type: ignore[attr-defined]
            Rectangle(
                (left, 0.93),
                0.072,
                0.035,
                transform=axes.transAxes,  # type: ignore[attr-defined]
                facecolor=colour,
                alpha=opacity,
                linewidth=0,
            )
        )
        axes.text(  # type: ignore[attr-defined]
            left + 0.036,
            0.90,
            "" if value in (-0.5, 0.5) else f"{value:g}".replace("-", "−"),
            transform=axes.transAxes,  # type: ignore[attr-defined]
            ha="center",
            va="center",
            fontsize=11,
            color=MUTED,
        )


def _below_diagonal(cosine: Matrix, n: int) -> list[tuple[int, int, float]]:
    found = []
    for i in range(n):
        for j in range(min(i, len(cosine[i]))):
            value = cosine[i][j]
            if value is not None:
                found.append((i, j, float(value)))
    return found


def _alt(cosine: Matrix, n: int) -> str:
    values = [value for _, _, value in _below_diagonal(cosine, n)]
    if not values:
        return "Cosine of every pair of members."
    return (
        f"Cosine of every pair of {n} members: from {min(values):.2f} to {max(values):.2f}, "
        f"mean {sum(values) / len(values):.2f}."
    )
