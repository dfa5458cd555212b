"""A data set of the Hugging Face hub, by its id; a local folder of the same format serves as well."""

from pathlib import Path

from negmerge.tasks.hub_data import HubSettings, fetch, fresh_cache
from negmerge.tasks.image_classification.folders import files_below
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.tables import TableSettings, to_source

SUMMARY = "a data set of the Hugging Face hub by its id, or a local folder of the same format"


class Settings(TableSettings, HubSettings):
    """Which data set, and which of its columns and splits."""


def load(settings: Settings) -> Source:
    """Fetch (or read from the cache) the train and test splits and decode them.

    Where the data set has a train split alone, and `splits` names no other, a share of it is the test table.
    """
    with fresh_cache(settings.path) as cache:
        train = fetch(settings, "train", cache)
        alone = "test" not in settings.splits and tuple(train.info.splits or ()) == ("train",)
        test = None if alone else fetch(settings, "test", cache)
        return to_source(train, test, settings, settings.path)


def files(settings: Settings) -> list[Path]:
    """Return the files of a local folder; a data set of the hub has none that are ours to watch."""
    folder = Path(settings.path)
    return sorted(files_below(folder)) if folder.is_dir() else []
