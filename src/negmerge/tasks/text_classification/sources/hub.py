"""A data set of the Hugging Face hub, by its id; a local folder of the same format serves as well."""

from typing import Any

from negmerge.tasks.hub_data import HubSettings, fetch, fresh_cache
from negmerge.tasks.text_classification.tables import Table, TextSettings, find_columns, to_source
from negmerge.tasks.text_classification.texts import TextSource

SUMMARY = "a data set of the Hugging Face hub by its id, or a local folder of the same format"


class Settings(TextSettings, HubSettings):
    """Which data set, and which of its columns and splits."""


def load(settings: Settings) -> TextSource:
    """Fetch (or read from the cache) the train and test splits."""
    with fresh_cache(settings.path) as cache:
        train, test = (_columns(fetch(settings, part, cache)) for part in ("train", "test"))
    return to_source(train, test, find_columns(train, settings.columns, settings.path), settings.most, settings.path)


def _columns(table: Any) -> Table:
    """Return the columns of a table of `datasets`, numbered classes by their names."""
    found: dict[str, list[Any]] = {}
    for name, feature in table.features.items():
        names, values = getattr(feature, "names", None), list(table[name])
        found[name] = [names[v] if isinstance(v, int) and v >= 0 else None for v in values] if names else values
    return found
