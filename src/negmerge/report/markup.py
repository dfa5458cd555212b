"""Figures as templates take them."""

from typing import Any


def markup(svg: str) -> Any:
    """Return an SVG that templates do not escape: it was built by our own figures, in which every text was escaped."""
    from markupsafe import Markup

    return Markup(svg)
