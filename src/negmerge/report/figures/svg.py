"""From a matplotlib figure to an SVG that can stand inside a page, light or dark, beside others.

Colours are drawn as stand-ins and replaced by the page's CSS variables; text stays text in the page's font;
ids get a prefix of their own; metadata, and with it every address, is left out. Equal figures give
equal bytes.
"""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from negmerge.report.numbers import printable

INK, MUTED, GRID, SURFACE = "#010101", "#020202", "#030303", "#040404"
FORGET, RETAIN, ACCENT, AGAINST = "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--rule)",
    SURFACE: "var(--surface)",
    FORGET: "var(--forget)",
    RETAIN: "var(--retain)",
    ACCENT: "var(--accent)",
    AGAINST: "var(--against)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "negmerge",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "figure.dpi": 72,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
}
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"


@contextmanager
def drawing(width: float, height: float) -> Iterator[Any]:
    """Give an empty figure of this size in px, under the page's style and none of the user's own."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the measuring font lacks; the reader's browser has them
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield Figure(figsize=(width / 72, height / 72))


def inline(figure: Any, prefix: str, alt: str) -> str:
    """Return `figure` as an SVG element with `alt` as its text for those who cannot see it.

    Call it inside `drawing`: the style takes effect when the figure is written.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}style", f"{_SVG}metadata") or "metadata" in str(child.tag):
                parent.remove(child)
    used = _references(root)
    for element in root.iter():
        element.tag = str(element.tag).replace(_SVG, "")
        _rewrite(element, prefix, used)
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": printable(alt),
        "style": f"max-width:{width:.0f}px",
    }
    return ET.tostring(root, encoding="unicode")


def _references(root: ET.Element) -> set[str]:
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            used.update(re.findall(r"url\(#([^)]+)\)", value))
        if _HREF in element.attrib:
            used.add(element.attrib[_HREF].lstrip("#"))
    return used


def _rewrite(element: ET.Element, prefix: str, used: set[str]) -> None:
    attributes: dict[str, str] = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value in used:
                attributes["id"] = f"{prefix}-{value}"
            continue
        if key == _HREF:
            attributes["href"] = f"#{prefix}-{value.lstrip('#')}"
            continue
        value = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", value)
        if key == "style":
            value = _restyle(value)
        elif key in ("d", "x", "y", "transform", "width", "height"):
            value = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value)
            value = re.sub(r"\s+", " ", value)
        attributes[key] = value
    element.attrib.clear()
    element.attrib.update(attributes)
    if element.text is not None and not element.text.strip():
        element.text = None
    if element.tail is not None and not element.tail.strip():
        element.tail = None


def _restyle(style: str) -> str:
    for stand_in, variable in _VARIABLES.items():
        style = style.replace(stand_in, variable)
    style = re.sub(r"font: ((?:\w+ )*?)(\d[\d.]*px)[^;]*", _font, style)
    style = re.sub(r"font-family:[^;]*;?\s*", "", style)
    return style.replace(": ", ":").replace("; ", ";").rstrip(";")


def _font(found: re.Match[str]) -> str:
    bold = ";font-weight:600" if re.search(r"bold|[67]00", found[1]) else ""
    return f"font-size:{found[2]}{bold}"
