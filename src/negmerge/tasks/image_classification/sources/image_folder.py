"""Image files in a folder for each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from negmerge.errors import InputError
from negmerge.tasks.image_classification.decoding import DecodingSettings, decode
from negmerge.tasks.image_classification.images import ImageSet, Source
from negmerge.tasks.image_classification.split_names import SPLITS, VALIDATION, Splits, spellings
from negmerge.tasks.image_classification.tables import sample_rows

SUMMARY = "image files as train/CLASS/… and test/CLASS/…, or CLASS/… with a seeded test part"
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class Settings(DecodingSettings):
    """Where the files are, and how a test part is taken where there is none."""

    path: Path = Field(description="folder with train/ and test/, or with the class folders themselves")
    splits: Splits = Field(default_factory=dict, description=SPLITS)
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for test, where there is no test/")
    seed: int = Field(0, ge=0, description="of that share")
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


def load(settings: Settings) -> Source:
    """Read all images, classes and files in the order of their names; what is not taken is not decoded.

    Raises InputError for a missing or empty folder, for a class that only the test part has, and for a folder that
    looks like a test part of another name.
    """
    root = settings.path
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give data.path")
    first, second = _parts(root, settings.splits)
    classes = _classes(first)
    train = _list(first, classes)
    if second is None:
        return _split(train, classes, settings, first)
    strangers = [name for name in _classes(second) if name not in classes]
    if strangers:
        raise InputError(f"{second} has the class {strangers[0]!r}, which {first.name}/ does not have")
    train = train.take(sample_rows(torch.arange(len(train.files)), settings.most))
    return Source(_decode(train, classes, settings, first), _decode(_list(second, classes), classes, settings, second))


def _split(table: Listed, classes: tuple[str, ...], settings: Settings, folder: Path) -> Source:
    """Return one table as two, a seeded share of its rows being the test table."""
    order = torch.randperm(len(table.files), generator=torch.Generator().manual_seed(settings.seed))
    cut = max(1, round(settings.test_fraction * len(order)))
    test, train = order[:cut].sort().values, sample_rows(order[cut:].sort().values, settings.most)
    if len(order) and not len(train):
        raise InputError(
            f"{settings.path} holds {len(order)} images, too few to take a test part from; give it a test/ folder"
        )
    kept = torch.cat([train, test]).sort().values
    whole = _decode(table.take(kept), classes, settings, folder)
    return Source(*(whole.take(torch.searchsorted(kept, rows)) for rows in (train, test)))


def has_split(folder: Path, split: str) -> bool:
    """Whether a folder holds the class folders of a split."""
    return _folder(folder, split) is not None


def _parts(root: Path, splits: Mapping[str, str]) -> tuple[Path, Path | None]:
    """Return the folders of the train and the test table; without a train folder the classes lie in `root` itself."""
    train, test = (_folder(root, splits.get(part, part)) for part in ("train", "test"))
    if train is None or test is not None:
        return (train or root), (test if train else None)
    ignored = [name for name in ("test", *VALIDATION) if (root / name).is_dir()]
    if ignored:
        raise InputError(
            f"{root} has no {splits.get('test', 'test')}/ but {ignored[0]}/, which would be ignored: "
            f"write splits: {{test: {ignored[0]}}} to test on it, or give {train} to test on a share of its rows"
        )
    return train, None


def _folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in spellings(split) if (root / name).is_dir()), None)


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise InputError(f"{folder} holds no class folders; put each class's images into a folder of its name")
    return names


def _list(folder: Path, classes: tuple[str, ...]) -> Listed:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(  # files like ._1.png are notes of a file system
            p for p in (folder / name).rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
        )
        files += found
        labels += [label] * len(found)
    return Listed(files, labels)


def _decode(table: Listed, classes: tuple[str, ...], settings: Settings, folder: Path) -> ImageSet:
    images = decode(table.files, settings, str(folder))
    return ImageSet(images, torch.tensor(table.labels, dtype=torch.int64), classes)
