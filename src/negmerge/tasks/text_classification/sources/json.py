"""JSON files: a list of objects, or an object a line."""

import json
from pathlib import Path
from typing import Any

from negmerge.errors import InputError, shortened
from negmerge.tasks.text_classification.tables import FileSettings, Table, files_of, load_files
from negmerge.tasks.text_classification.texts import TextSource

SUMMARY = "files with a list of JSON objects, or one a line, all with the same keys"
ENDINGS = (".json", ".jsonl", ".ndjson")


FORM = (
    'write a list of objects, or an object a line, such as {"prompt": …, "answer": …} or {"text": …} for a language '
    'model, {"text": …, "label": …} for a classifier'
)


class Settings(FileSettings):
    """Where the files are, and which keys hold text and label."""


def load(settings: Settings) -> TextSource:
    """Read the files."""
    return load_files(settings, read, ENDINGS)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads."""
    return files_of(settings, ENDINGS)


def read(path: Path) -> Table:
    """Return the values of each key. Raises InputError for a file that is no such table."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); save it again, in UTF-8") from None
    rows = _rows(text, path)
    wrong = next((i for i, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise InputError(f"{path}: row {wrong} is {_kind(rows[wrong])}, not an object; {FORM}")
    if len(rows) == 1 and rows[0] and all(isinstance(value, list | dict) for value in rows[0].values()):
        raise InputError(f"{path} holds one object of columns or of lists ({shortened([*rows[0]])}), no rows; {FORM}")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {key: [row.get(key) for row in rows] for key in keys}


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null", bool: "a truth value"}.get(type(value), "a number")


def _rows(text: str, path: Path) -> list[Any]:
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        return whole
    rows = []
    for number, line in enumerate(text.splitlines()):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise InputError(f"{path}: line {number + 1} is not JSON; give a list, or an object a line") from None
    return rows
