"""A corner of one matrix: which elements the merged vector changes, and which were filtered out."""

from collections.abc import Sequence
from typing import Any

from negmerge.report.figures.svg import ACCENT, AGAINST, GRID, drawing, inline
from negmerge.report.numbers import share


def matrix_figure(signs: Sequence[str], name: str, prefix: str) -> str:
    """Draw a square for each element that is kept, in one colour for each sign; what was filtered stays empty.

    `signs` is a text for each row: "+" and "-" are kept elements, all else is filtered.
    """
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    rows, columns = len(signs), max(map(len, signs))
    height = 12 + 420 * rows / columns
    with drawing(420, height) as figure:
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        axes.set_xlim(0, columns)
        axes.set_ylim(rows, 0)
        axes.set_axis_off()
        axes.add_patch(Rectangle((0, 0), columns, rows, facecolor=GRID, alpha=0.5, linewidth=0))
        for mark, colour in (("+", ACCENT), ("-", AGAINST)):
            bars = [_bar(x, end, y) for y, row in enumerate(signs) for x, end in _runs(row, mark)]
            if bars:
                axes.add_patch(PathPatch(Path.make_compound_path(*bars), facecolor=colour, linewidth=0))
        kept = sum(row.count("+") + row.count("-") for row in signs)
        alt = f"A corner of {name}, {rows} by {columns} elements: {share(kept / (rows * columns))} are changed."
        return inline(figure, prefix, alt)


def _runs(row: str, mark: str) -> list[tuple[int, int]]:
    """Return first and end of each run of a mark.

    >>> _runs("++.+", "+")
    [(0, 2), (3, 4)]
    """
    found: list[tuple[int, int]] = []
    for i, one in enumerate(row):
        if one != mark:
            continue
        if found and found[-1][1] == i:
            found[-1] = (found[-1][0], i + 1)
        else:
            found.append((i, i + 1))
    return found


def _bar(x: int, end: int, y: int) -> Any:
    from matplotlib.path import Path

    corners = [(x, y), (end, y), (end, y + 0.96), (x, y + 0.96), (x, y)]
    return Path(corners, closed=True)
