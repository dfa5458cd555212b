"""Parquet files on disk, as the hub stores image data sets."""

import tempfile
from pathlib import Path

from pydantic import Field

from negmerge.data import Source
from negmerge.data.tables import TableSettings, quiet, to_source
from negmerge.errors import InputError

SUMMARY = "a folder with train*.parquet and test*.parquet, as the Hugging Face hub stores image data sets"


class Settings(TableSettings):
    """Where the files are, and which columns hold image and label."""

    path: Path = Field(description="folder with train*.parquet and test*.parquet, itself or in one of its folders")


def load(settings: Settings) -> Source:
    """Read the files of both tables in the order of their names, and decode the images.

    Raises InputError for a folder without the files, and for files that are damaged.
    """
    import datasets
    import pyarrow

    files = {part: _files(settings.path, part) for part in ("train", "test")}
    with quiet(), tempfile.TemporaryDirectory() as cache:  # nothing is left in the user's cache
        try:
            train, test = (
                datasets.Dataset.from_parquet([str(file) for file in files[part]], cache_dir=cache, keep_in_memory=True)
                for part in ("train", "test")
            )
        except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError, ValueError, OSError):
            raise InputError(f"{settings.path} holds parquet files that cannot be read; fetch them again") from None
        return to_source(train, test, settings, str(settings.path))


def _files(folder: Path, part: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give data.path")
    found = {place: sorted(place.glob(f"{part}*.parquet")) for place in (folder, *sorted(folder.glob("[!.]*/")))}
    places = [place for place, files in found.items() if files]
    if not places:
        raise InputError(f"{folder} holds no {part}*.parquet, neither itself nor in a folder of it")
    if len(places) > 1 and places[0] != folder:
        names = ", ".join(place.name for place in places)
        raise InputError(f"{folder} holds {part}*.parquet in several folders ({names}); give data.path one of them")
    return found[places[0]]
