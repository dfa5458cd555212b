"""Numbers as the reader sees them: one decimal for percentages, an en dash for what is missing."""

import re
from typing import Any

MISSING = "–"
SPACE = "\u00a0"  # between a number and its unit: never broken over two lines


def percent(value: float | None, std: float | None = None) -> str:
    """Return a percentage without its sign: '3.1', '3.1 ± 0.4', '–'.

    >>> percent(3.14), percent(None), percent(0.0004)
    ('3.1', '–', '<0.1')
    """
    if value is None:
        return MISSING
    text = "<0.1" if 0.0 < value < 0.05 else f"{value + 0.0:.1f}"
    text = "0.0" if text == "-0.0" else text
    return f"{text}{SPACE}±{SPACE}{std:.1f}" if std is not None else text


def percent_sign(value: float | None) -> str:
    """Return a percentage with its sign, for running text."""
    return MISSING if value is None else f"{percent(value)}{SPACE}%"


def share(value: float | None) -> str:
    """Return a share from 0 to 1 as a percentage with its sign."""
    return percent_sign(None if value is None else 100.0 * value)


def alpha(value: float | None, std: float | None = None) -> str:
    """Return α with the digits it needs, two when it is a mean over seeds."""
    if value is None:
        return MISSING
    return f"{value:.2f}{SPACE}±{SPACE}{std:.2f}" if std is not None else f"{value:.4g}"


def number(value: float | None) -> str:
    """Return a number of no particular unit, such as a loss, with three significant digits."""
    return MISSING if value is None else f"{value:.3g}"


def times(value: float) -> str:
    """Return a ratio with as many digits as it deserves: '1.4', '63'."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def count(value: float | None) -> str:
    """Return a whole number with separators: '1,024'."""
    return MISSING if value is None else f"{round(value):,}"


def many(value: float | None) -> str:
    """Return a large number in words of three digits: '11.2 million'."""
    if value is None:
        return MISSING
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g}{SPACE}{word}"
    return count(value)


def seconds(value: float | None) -> str:
    """Return a duration: '0.4 s', '12 s', '3 min 20 s', '1 h 05 min'."""
    if value is None:
        return MISSING
    if value < 9.95:
        return f"{value:.1f}{SPACE}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        rest = f"{SPACE}{whole % 60:02d}{SPACE}s" if whole % 60 else ""
        return f"{whole // 60}{SPACE}min{rest}"
    minutes = round(value / 60)
    return f"{minutes // 60}{SPACE}h{SPACE}{minutes % 60:02d}{SPACE}min"


def size(value: float | None) -> str:
    """Return a number of bytes in powers of 1000, as the tools that list files do."""
    if value is None:
        return MISSING
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g}{SPACE}{name}"
    return f"{value:.0f}{SPACE}bytes"


def setting(value: Any) -> str:
    """Return the value of a setting as one would write it in a config."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(setting(inner) for inner in value)
    return str(value)


def first_upper(text: str) -> str:
    """Return `text` with its first letter as a capital."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """Return a noun behind a or an, by its first letter."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def printable(text: str) -> str:
    """Return `text` without the control characters that neither HTML nor XML may hold."""
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def shorten(text: str, most: int) -> str:
    """Return `text` with its middle left out when it is longer than `most` characters."""
    text = printable(text).replace("\n", " ")
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def listed(words: list[str], last: str = "and") -> str:
    """Return 'a', 'a and b', 'a, b and c'."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
