"""A data set of the Hugging Face hub, by its id; a local folder of the same format serves as well."""

import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from negmerge.errors import InputError
from negmerge.tasks.image_classification.folders import files_below
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.tables import TableSettings, quiet, to_source
from negmerge.tasks.split_names import SPLITS, Splits

SUMMARY = "a data set of the Hugging Face hub by its id, or a local folder of the same format"


class Settings(TableSettings):
    """Which data set, and which of its columns and splits."""

    path: str = Field(min_length=1, description="hub id, such as uoft-cs/cifar10, or a local folder")
    config: str | None = Field(None, description="the configuration of a data set that has several")
    revision: str | None = Field(None, description="branch, tag or commit")
    splits: Splits = Field(default_factory=dict, description=SPLITS)


def load(settings: Settings) -> Source:
    """Fetch (or read from the cache) the train and test splits and decode them.

    Where the data set has a train split alone, and `splits` names no other, a share of it is the test table.
    Raises InputError for an id that cannot be reached or does not exist, and for a split that is not there.
    """
    with tempfile.TemporaryDirectory() as fresh:
        # The library's own cache may answer for a local folder from what another of that name held.
        cache = fresh if Path(settings.path).is_dir() else None
        train = fetch(settings, settings.splits.get("train", "train"), cache)
        alone = "test" not in settings.splits and tuple(train.info.splits or ()) == ("train",)
        test = None if alone else fetch(settings, settings.splits.get("test", "test"), cache)
        return to_source(train, test, settings, settings.path)


def files(settings: Settings) -> list[Path]:
    """Return the files of a local folder; a data set of the hub has none that are ours to watch."""
    folder = Path(settings.path)
    return sorted(files_below(folder)) if folder.is_dir() else []


def fetch(settings: Any, split: str, cache: str | None) -> Any:
    """Return one split; `settings` have path, config and revision, `cache` is where the library keeps what it reads."""
    import datasets

    try:
        with quiet():
            return datasets.load_dataset(
                settings.path, settings.config, split=split, revision=settings.revision, cache_dir=cache
            )
    except Exception as error:  # the library raises its own, requests', httpx' and builtin errors
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"data set {settings.path!r}, split {split!r}, cannot be loaded ({type(error).__name__}: {reason}); "
            "check the id, the splits and the network, or use source: parquet with local files"
        ) from None
