"""Parquet files, as the hub stores data sets."""

import json
from pathlib import Path

from negmerge.errors import InputError
from negmerge.tasks.text_classification.tables import FileSettings, Table, files_of, load_files
from negmerge.tasks.text_classification.texts import TextSource

SUMMARY = "parquet files; class names that the hub keeps in them are used"
ENDINGS = (".parquet",)


class Settings(FileSettings):
    """Where the files are, and which columns hold text and label."""


def load(settings: Settings) -> TextSource:
    """Read the files."""
    return load_files(settings, read, ENDINGS)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads."""
    return files_of(settings, ENDINGS)


def read(path: Path) -> Table:
    """Return the columns of a file, numbered classes by their names. Raises InputError for one that is damaged."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as parquet ({error}); fetch it again") from None
    names = _class_names(table.schema.metadata or {})
    columns: dict[str, list[object]] = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if known := names.get(name):
            values = [known[v] if isinstance(v, int) and 0 <= v < len(known) else v for v in values]
        columns[name] = values
    return columns


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Return the class names that the datasets library wrote beside a schema, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
