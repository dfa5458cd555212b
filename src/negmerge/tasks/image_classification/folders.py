"""What lies in an image folder: which folders are splits and classes, which files are images, what is passed over."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from negmerge.errors import InputError, shortened
from negmerge.tasks.split_names import VALIDATION, is_spelling, spelt

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
JUNK = ("thumbs.db", "desktop.ini", "metadata.csv", "metadata.jsonl")  # of systems, or read as what it is


def is_hidden(name: str) -> bool:
    """Whether a file or folder belongs to a system or an editor: `.DS_Store`, `.ipynb_checkpoints`, `__MACOSX`."""
    return name.startswith(".") or name == "__MACOSX"


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones aside."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and all folders below it, links to folders followed once; hidden ones aside."""
    seen: set[str] = set()
    for place, inner, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        inner[:] = [] if real in seen else [name for name in inner if not is_hidden(name)]
        if real not in seen:
            yield from (Path(place, name) for name in names if not is_hidden(name))
        seen.add(real)


def is_image(file: Path) -> bool:
    """Whether a file is read as an image: by the ending of its name."""
    return file.suffix.lower() in ENDINGS


@dataclass(frozen=True)
class Parts:
    """The folders of the train and of the test table, if there is one; `notes` say what beside them is not read."""

    train: Path
    test: Path | None
    notes: tuple[str, ...] = ()


def parts_of(root: Path, splits: Mapping[str, str]) -> Parts:
    """Return the folders of both tables; without a train folder the classes lie in `root` itself.

    A folder is a split's by its name in any spelling and case, if class folders lie in it: with images alone it is a
    class. `splits` names others; `{train: .}` says that all folders are classes.

    Raises InputError for a split that two folders may be, and where a validation folder would be passed over.
    """
    if splits.get("train") == ".":
        return Parts(root, split_folder(root, splits["test"]) if "test" in splits else None)
    train, test = (split_folder(root, splits.get(part, part)) for part in ("train", "test"))
    if train is None:
        return Parts(root, None)
    if test is None:
        ignored = next((name for name in folders_in(root) if _passed_over(root, name, train)), None)
        if ignored is not None:
            raise InputError(
                f"{root} has no {splits.get('test', 'test')}/ but {ignored}/, which would be ignored: "
                f"write splits: {{test: {ignored}}} to test on it, or give {train} to test on a share of its rows"
            )
    beside = [name for name in folders_in(root) if not is_spelling(name) and root / name not in (train, test)]
    beside = [name for name in beside if any(is_image(file) for file in files_below(root / name))]
    note = f"{root}: the folders beside {train.name}/ are not read ({shortened(beside, 5)}); if all are classes, write "
    return Parts(train, test, (f"{note}splits: {{train: .}}",) if beside else ())


def split_folder(root: Path, split: str) -> Path | None:
    """Return the folder of a split: of its very name, or else in another spelling; None where there is none.

    Raises InputError where two folders may be meant.
    """
    found = [name for name in folders_in(root) if spelt(name, split)] if root.is_dir() else []
    found = [name for name in found if _holds_classes(root, name)]
    if split in found:
        return root / split
    if len(found) > 1:
        part = next((key for key in ("train", "test") if spelt(found[0], key)), "test")
        raise InputError(f"{root} holds {' and '.join(found)}; say which one it is: splits: {{{part}: {found[0]}}}")
    return root / found[0] if found else None


def _holds_classes(root: Path, name: str) -> bool:
    """Whether a folder with a split's name is one; a folder of images alone is a class where other classes are."""
    if folders_in(root / name):
        return True
    flat = any(is_image(file) for file in (root / name).iterdir())
    return flat and all(is_spelling(other) for other in folders_in(root))  # then it is said that it lacks class folders


def _passed_over(root: Path, name: str, train: Path) -> bool:
    return root / name != train and any(spelt(name, split) for split in ("test", VALIDATION[0]))


def classes_in(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders. Raises InputError where there are none."""
    names = tuple(folders_in(folder))
    if not names:
        raise InputError(f"{folder} holds no class folders; put each class's images into a folder of its name")
    return names


def skipped_in(folder: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return what of a folder is not read, a line each: files of other endings, images outside of class folders."""
    other: Counter[str] = Counter()
    for name in classes:
        found = [file for file in files_below(folder / name) if not is_image(file) and file.name.lower() not in JUNK]
        other.update(file.suffix.lower() or "without ending" for file in found)
    loose = sum(1 for file in folder.iterdir() if file.is_file() and is_image(file) and not is_hidden(file.name))
    notes = []
    if other:
        ordered = sorted(other.items(), key=lambda one: (-one[1], one[0]))
        counted = ", ".join(f"{count:,} {ending}" for ending, count in ordered)
        notes.append(f"{folder}: {other.total():,} files are not read as images: {counted}")
    if loose:
        notes.append(f"{folder}: {loose:,} images lie in no class folder and are not read")
    return tuple(notes)
