"""Tables as notebooks show them."""

import html
from collections.abc import Sequence


def html_of(title: str, rows: Sequence[Sequence[str]], warnings: Sequence[str] = (), head: Sequence[str] = ()) -> str:
    """Return a table with a caption, and a list of warnings below it; every text stands for itself.

    >>> html_of("a < b", [["kept", "2"]], ["few"])
    '<table><caption>a &lt; b</caption><tr><td>kept</td><td>2</td></tr></table><ul><li>few</li></ul>'
    """

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"

    lines = [*([line(head, "th")] if head else []), *(line(row, "td") for row in rows)]
    below = f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in warnings)}</ul>" if warnings else ""
    return f"<table><caption>{html.escape(title)}</caption>{''.join(lines)}</table>{below}"
