"""Data sets of the Hugging Face hub, whatever their rows are: which one, and how a split of it is fetched."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from negmerge.errors import InputError
from negmerge.tasks.split_names import SPLITS, Splits


class HubSettings(BaseModel):
    """Which data set, and which of its splits."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1, description="hub id, such as uoft-cs/cifar10 or stanfordnlp/imdb, or a local folder"
    )
    config: str | None = Field(None, description="the configuration of a data set that has several")
    revision: str | None = Field(None, description="branch, tag or commit")
    splits: Splits = Field(default_factory=dict, description=SPLITS)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep `datasets` and the hub's client from writing bars and retries to stderr; afterwards they do as before."""
    import datasets

    bars = datasets.is_progress_bar_enabled()
    client = logging.getLogger("huggingface_hub")
    level = client.level
    datasets.disable_progress_bars()
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextmanager
def fresh_cache(path: str) -> Iterator[str | None]:
    """Yield where the library keeps what it reads: a folder of its own for local data, else its own cache (None).

    That cache may answer for a local folder from what another of that name held.
    """
    with tempfile.TemporaryDirectory() as fresh:
        yield fresh if Path(path).is_dir() else None


def fetch(settings: HubSettings, part: str, cache: str | None) -> Any:
    """Return the split that serves as `part`, train or test, as a table of `datasets`.

    Raises InputError for an id that cannot be reached or does not exist, and for a split that is not there.
    """
    import datasets

    split = settings.splits.get(part, part)
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
