"""Image files in a folder for each class."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from negmerge.errors import InputError
from negmerge.requests.naming import rows_named
from negmerge.tasks.image_classification.decoding import DecodingSettings, decode_hashed
from negmerge.tasks.image_classification.folder_columns import columns_of_files, metadata_files
from negmerge.tasks.image_classification.folders import (
    classes_in,
    files_below,
    is_image,
    parts_of,
    skipped_in,
    split_folder,
)
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.image_classification.tables import sample_rows
from negmerge.tasks.split_names import SPLITS, Splits

SUMMARY = "image files as train/CLASS/… and test/CLASS/…, or CLASS/… with a seeded test part"


class Settings(DecodingSettings):
    """Where the files are, and how a test part is taken where there is none."""

    path: Path = Field(description="folder with train/ and test/, or with the class folders themselves")
    splits: Splits = Field(default_factory=dict, description=SPLITS)
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for test, where there is no test/")
    seed: int = Field(0, ge=0, description="of that share")
    train_files: Path | None = Field(
        None, description="a list of files, one a line, that stay in the train table where that share is drawn"
    )
    leave_out: list[Path] = Field(
        default_factory=list,
        description="lists of files, or the split.json of earlier runs with what they forgot: in neither table",
    )
    most: int | None = Field(
        None, ge=1, description="a seeded sample of so many rows of the train table; all unless set"
    )


@dataclass(frozen=True)
class Listed:
    """The files of a table and the number of the class of each; nothing is read of them yet."""

    files: list[Path]
    labels: list[int]

    def take(self, rows: Tensor) -> "Listed":
        """Return some rows, in their order."""
        return Listed([self.files[row] for row in rows.tolist()], [self.labels[row] for row in rows.tolist()])


@dataclass(frozen=True)
class Listing:
    """What is taken of a folder: `rows` are those of the train and of the test table in `table` where both lie in one,
    else `test` is a table of its own. `roots` are the folders of both, `notes` what is not read."""

    classes: tuple[str, ...]
    table: Listed
    rows: tuple[Tensor, Tensor] | None
    test: Listed
    roots: tuple[Path, ...]
    notes: tuple[str, ...]


def load(settings: Settings) -> Source:
    """Read all images, classes and files in the order of their names; what is not taken is not decoded.

    Rows are named by the path of their file below `path`; `class`, `folder` and what `metadata.csv` or
    `metadata.jsonl` says of a file are its columns. Hidden folders and files, and `__MACOSX`, are passed over.

    Raises InputError for a missing or empty folder, for a class that only the test part has, and for a folder that
    looks like a test part of another name.
    """
    found = _look(settings)
    whole = _decode(found.table, found, settings, found.roots[0])
    if found.rows is None:
        return Source(whole, _decode(found.test, found, settings, found.roots[1]), found.notes)
    train, test = (whole.take(rows) for rows in found.rows)
    return Source(train, test, found.notes)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads, in a fixed order."""
    found = _look(settings)
    beside = [*metadata_files((settings.path, *found.roots)), *settings.leave_out]
    return [*found.table.files, *found.test.files, *beside]


def has_split(folder: Path, split: str) -> bool:
    """Whether a folder holds the class folders of a split."""
    return split_folder(folder, split) is not None


def _look(settings: Settings) -> Listing:
    """List the folder and draw what is taken of it; nothing is decoded."""
    root = settings.path
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give data.path")
    parts = parts_of(root, settings.splits)
    classes = classes_in(parts.train)
    train = _list(parts.train, classes, settings)
    notes = (*parts.notes, *skipped_in(parts.train, classes))
    if parts.test is None:
        return _split(train, classes, settings, parts.train, notes)
    in_test = classes_in(parts.test)
    strangers = [name for name in in_test if name not in classes]
    if strangers:
        raise InputError(f"{parts.test} has the class {strangers[0]!r}, which {parts.train.name}/ does not have")
    train = train.take(sample_rows(torch.arange(len(train.files)), settings.most))
    notes += skipped_in(parts.test, in_test)
    return Listing(classes, train, None, _list(parts.test, classes, settings), (parts.train, parts.test), notes)


def _split(
    table: Listed, classes: tuple[str, ...], settings: Settings, folder: Path, notes: tuple[str, ...]
) -> Listing:
    """Return one table as two, a seeded share of its rows being the test table."""
    order = torch.randperm(len(table.files), generator=torch.Generator().manual_seed(settings.seed))
    kept_in = torch.empty(0, dtype=torch.int64)
    if settings.train_files is not None:
        ids = [file.relative_to(settings.path).as_posix() for file in table.files]
        kept_in = torch.tensor(rows_named(settings.train_files, ids), dtype=torch.int64)
        order = order[~torch.isin(order, kept_in)]
    cut = max(1, round(settings.test_fraction * len(order)))
    test, train = order[:cut].sort().values, sample_rows(order[cut:].sort().values, settings.most)
    train = torch.cat([train, kept_in]).sort().values
    if len(order) and not len(train):
        raise InputError(
            f"{settings.path} holds {len(order)} images, too few to take a test part from; give it a test/ folder"
        )
    kept = torch.cat([train, test]).sort().values
    rows = (torch.searchsorted(kept, train), torch.searchsorted(kept, test))
    return Listing(classes, table.take(kept), rows, Listed([], []), (folder,), notes)


def _list(folder: Path, classes: tuple[str, ...], settings: Settings) -> Listed:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(file for file in files_below(folder / name) if is_image(file))
        files += found
        labels += [label] * len(found)
    listed = Listed(files, labels)
    if not settings.leave_out:
        return listed
    ids = [file.relative_to(settings.path).as_posix() for file in files]
    gone = {row for path in settings.leave_out for row in rows_named(path, ids)}
    return listed.take(torch.tensor([row for row in range(len(ids)) if row not in gone], dtype=torch.int64))


def _decode(table: Listed, found: Listing, settings: Settings, folder: Path) -> ImageSet:
    decoded = decode_hashed(table.files, settings, str(folder))
    names = [found.classes[label] for label in table.labels]
    return ImageSet(
        decoded.images,
        torch.tensor(table.labels, dtype=torch.int64),
        found.classes,
        tuple(file.relative_to(settings.path).as_posix() for file in table.files),
        decoded.hashes,
        columns_of_files(table.files, names, (settings.path, folder)),
    )
