"""Image files in a folder for each class."""

from pathlib import Path

import torch
from pydantic import Field

from negmerge.data import ImageSet, Source
from negmerge.data.decoding import DecodingSettings, decode
from negmerge.errors import InputError

SUMMARY = "image files as train/CLASS/… and test/CLASS/…, or CLASS/… with a seeded test part"
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class Settings(DecodingSettings):
    """Where the files are, and how a test part is taken where there is none."""

    path: Path = Field(description="folder with train/ and test/, or with the class folders themselves")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for test, where there is no test/")
    seed: int = Field(0, ge=0, description="of that share")


def load(settings: Settings) -> Source:
    """Read all images, classes and files in the order of their names.

    Raises InputError for a missing or empty folder, and for a class that only the test part has.
    """
    root = settings.path
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give data.path")
    has_parts = (root / "train").is_dir()
    classes = _classes(root / "train" if has_parts else root)
    first = _read(root / "train" if has_parts else root, classes, settings)
    if has_parts and (root / "test").is_dir():
        strangers = [name for name in _classes(root / "test") if name not in classes]
        if strangers:
            raise InputError(f"{root}/test has the class {strangers[0]!r}, which train/ does not have")
        return Source(first, _read(root / "test", classes, settings))
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(settings.seed))
    cut = max(1, round(settings.test_fraction * len(first)))
    test, train = order[:cut].sort().values, order[cut:].sort().values
    if not len(train):
        raise InputError(f"{root} holds {len(first)} images, too few to take a test part from; give it a test/ folder")
    return Source(first.take(train), first.take(test))


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise InputError(f"{folder} holds no class folders; put each class's images into a folder of its name")
    return names


def _read(folder: Path, classes: tuple[str, ...], settings: Settings) -> ImageSet:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(  # files like ._1.png are notes of a file system
            p for p in (folder / name).rglob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
        )
        files += found
        labels += [label] * len(found)
    return ImageSet(decode(files, settings, str(folder)), torch.tensor(labels, dtype=torch.int64), classes)
