"""What the base's model card declares that must stay declared: licence and language."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from negmerge.checkpoints.plain_file import open_plain

KEYS = ("license", "license_name", "license_link", "language")
HEAD = 2**16  # bytes in which the front matter of a card lies

Declared = Mapping[str, str | list[str]]


def declared_in(card: Path) -> dict[str, str | list[str]]:
    """Return licence and language as the YAML front matter of a model card has them, all of them as text.

    A language `no` stays the text "no". Nothing is declared by a card that is not there or whose front matter is not
    YAML. Raises InputError for one that cannot be read.
    """
    if not card.is_file():
        return {}
    descriptor = open_plain(card)
    try:
        text = os.pread(descriptor, HEAD, 0).decode(errors="replace")
    finally:
        os.close(descriptor)
    found = re.match(r"\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    try:
        content = yaml.load(found[1], yaml.BaseLoader) if found else None
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: content[key] for key in KEYS if _is_declaration(content.get(key))}


def front_matter(declared: Declared, library: str, tags: list[str]) -> str:
    """Return the YAML front matter of OUT's card, with what the base's declared first."""
    content = {**declared, "library_name": library, "tags": tags}
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def _is_declaration(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(texts) and all(isinstance(text, str) and text and len(text) < 500 for text in texts)
