"""What is known of the files of an image folder besides their class: `metadata.csv` or `metadata.jsonl` beside them.

The form is that of the Hugging Face image folder: a column `file_name`, relative to the folder of the file.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from negmerge.errors import InputError

NAMES = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"


def columns_of_files(files: Sequence[Path], labels: Sequence[str], roots: Iterable[Path]) -> dict[str, list[Any]]:
    """Return the columns of files: `class`, `folder`, and those of the metadata in any of the roots.

    A file that the metadata does not know has None. Raises InputError for metadata that cannot be read.
    """
    found: dict[str, list[Any]] = {
        "class": list(labels),
        "folder": [file.parent.name for file in files],
    }
    place = {file: row for row, file in enumerate(files)}
    for root in dict.fromkeys(roots):
        for path in (root / name for name in NAMES):
            for entry in _entries(path) if path.is_file() else ():
                row = place.get(root / str(entry.pop(FILE)))
                for column, value in entry.items() if row is not None else ():
                    found.setdefault(column, [None] * len(files))[row or 0] = value
    return found


def metadata_files(roots: Iterable[Path]) -> list[Path]:
    """Return the metadata files that are there."""
    return [root / name for root in dict.fromkeys(roots) for name in NAMES if (root / name).is_file()]


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix == ".csv":
            found: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
        else:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
        if not all(isinstance(entry, dict) and FILE in entry for entry in found):
            raise ValueError(f"a row has no {FILE}")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read ({error}); each row needs a {FILE}, relative to the folder of {path.name}"
        ) from None
    return found
