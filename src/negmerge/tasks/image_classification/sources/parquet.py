"""Parquet files on disk, as the hub stores image data sets."""

import tempfile
from pathlib import Path

from pydantic import Field

from negmerge.errors import InputError
from negmerge.tasks.hub_data import quiet
from negmerge.tasks.image_classification.folders import folders_in
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.tables import TableSettings, to_source
from negmerge.tasks.split_names import SPLITS, VALIDATION, Splits, spellings

SUMMARY = "a folder with train*.parquet and test*.parquet, as the Hugging Face hub stores image data sets"


class Settings(TableSettings):
    """Where the files are, and which columns hold image and label."""

    path: Path = Field(description="folder with train*.parquet and test*.parquet, itself or in one of its folders")
    splits: Splits = Field(default_factory=dict, description=SPLITS)


def load(settings: Settings) -> Source:
    """Read the files of both tables in the order of their names, and decode the images.

    Where there are train files alone, and `splits` names no other, a share of their rows is the test table. Raises
    InputError for a folder without the files, and for files that are damaged.
    """
    import datasets
    import pyarrow

    found = _files_of_parts(settings)
    with quiet(), tempfile.TemporaryDirectory() as cache:  # nothing is left in the user's cache
        try:
            tables = [
                datasets.Dataset.from_parquet([str(file) for file in of_part], cache_dir=cache, keep_in_memory=True)
                for of_part in found.values()
            ]
        except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError, ValueError, OSError):
            raise InputError(f"{settings.path} holds parquet files that cannot be read; fetch them again") from None
        return to_source(tables[0], tables[1] if len(tables) > 1 else None, settings, str(settings.path))


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads, in a fixed order."""
    return [file for of_part in _files_of_parts(settings).values() for file in of_part]


def has_split(folder: Path, split: str) -> bool:
    """Whether a folder, or one of its folders, holds parquet files of a split."""
    return bool(_places(folder, split))


def _files_of_parts(settings: Settings) -> dict[str, list[Path]]:
    """Return the files of train and test; of train alone where there is no other split, whatever it is called."""
    folder, splits = settings.path, settings.splits
    found = {"train": _files(folder, splits.get("train", "train"))}
    others = any(_places(folder, name) for name in ("test", VALIDATION[-1]))
    if "test" in splits or others:
        found["test"] = _files(folder, splits.get("test", "test"))
    return found


def _files(folder: Path, split: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give data.path")
    places = _places(folder, split)
    if not places:
        other = [name for name in ("test", VALIDATION[-1]) if _places(folder, name)]
        hint = f"; to test on its {other[0]}*.parquet, write splits: {{test: {other[0]}}}" if other else ""
        raise InputError(f"{folder} holds no {split}*.parquet, neither itself nor in a folder of it{hint}")
    first = next(iter(places))
    if len(places) > 1 and first != folder:
        names = ", ".join(place.name for place in places)
        raise InputError(f"{folder} holds {split}*.parquet in several folders ({names}); give data.path one of them")
    return places[first]


def _places(folder: Path, split: str) -> dict[Path, list[Path]]:
    """Return the folders that hold files of a split, and these; of several spellings the first that is there."""
    places = (folder, *(folder / name for name in folders_in(folder))) if folder.is_dir() else ()
    for name in spellings(split):
        found = {place: _named(place, name) for place in places}
        if any(found.values()):
            return {place: files for place, files in found.items() if files}
    return {}


def _named(place: Path, split: str) -> list[Path]:
    """Return the parquet files of a folder whose names begin with that of a split, whatever its case."""
    return sorted(
        file for file in place.glob("[!.]*.parquet") if file.name.lower().startswith(split.lower()) and file.is_file()
    )
