"""Tables of values between commas, semicolons or tabs."""

import csv
from pathlib import Path

from negmerge.errors import InputError
from negmerge.tasks.text_classification.tables import FileSettings, Table, files_of, load_files
from negmerge.tasks.text_classification.texts import TextSource

SUMMARY = "files with values between commas, semicolons or tabs, the first line naming the columns"
ENDINGS = (".csv", ".tsv", ".txt")
LIMIT = 2**31 - 1  # bytes of a value; the module's own limit is shorter than many a text


class Settings(FileSettings):
    """Where the files are, and which columns hold text and label."""


def load(settings: Settings) -> TextSource:
    """Read the files; every value is the text that stands there, 001 as 001."""
    return load_files(settings, read, ENDINGS)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads."""
    return files_of(settings, ENDINGS)


def read(path: Path) -> Table:
    """Return the columns of a file. Raises InputError for one that is no such table."""
    csv.field_size_limit(LIMIT)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            sign = max(",;\t", key=header.count)
            file.seek(0)
            rows = list(csv.reader(file, delimiter=sign, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); save it again, in UTF-8") from None
    rows = [row for row in rows if row]
    if not rows:
        raise InputError(f"{path} is empty; the first line must name the columns")
    names = rows[0]
    wrong = next((number for number, row in enumerate(rows) if len(row) != len(names)), None)
    if wrong is not None:
        raise InputError(f"{path}: row {wrong} has {len(rows[wrong])} values for {len(names)} columns; mend the file")
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}
