"""A data set of the Hugging Face hub, by its id; a local folder of the same format serves as well."""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from negmerge.tasks.image_classification.sources.hub import fetch
from negmerge.tasks.split_names import SPLITS, Splits
from negmerge.tasks.text_classification.tables import Table, TextSettings, find_columns, to_source
from negmerge.tasks.text_classification.texts import TextSource

SUMMARY = "a data set of the Hugging Face hub by its id, or a local folder of the same format"


class Settings(TextSettings):
    """Which data set, and which of its columns and splits."""

    path: str = Field(min_length=1, description="hub id, such as stanfordnlp/imdb, or a local folder")
    config: str | None = Field(None, description="the configuration of a data set that has several")
    revision: str | None = Field(None, description="branch, tag or commit")
    splits: Splits = Field(default_factory=dict, description=SPLITS)


def load(settings: Settings) -> TextSource:
    """Fetch (or read from the cache) the train and test splits.

    Raises InputError for an id that cannot be reached or does not exist, and for a split that is not there.
    """
    with tempfile.TemporaryDirectory() as fresh:
        # The library's own cache may answer for a local folder from what another of that name held.
        cache = fresh if Path(settings.path).is_dir() else None
        train, test = (_columns(fetch(settings, settings.splits.get(part, part), cache)) for part in ("train", "test"))
    return to_source(train, test, find_columns(train, settings.columns, settings.path), settings.most, settings.path)


def _columns(table: Any) -> Table:
    """Return the columns of a table of `datasets`, numbered classes by their names."""
    found: dict[str, list[Any]] = {}
    for name, feature in table.features.items():
        names, values = getattr(feature, "names", None), list(table[name])
        found[name] = [names[v] if isinstance(v, int) and v >= 0 else None for v in values] if names else values
    return found
