"""Images and labels in memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.requests.rows import ids_of
from negmerge.tasks.image_classification.room import make_room


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 [n, C, H, W], labels int64 [n] from 0, and the class names that the labels count.

    >>> images = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), ("cat", "dog"))
    >>> images.take(torch.tensor([2, 0])).labels
    tensor([1, 0])

    `ids` are the rows' own names (paths, as a rule) and `hashes` of what each was decoded from, `sha256:…`; where
    either is empty, a row goes by its number, and the hash is of its pixels. `columns` holds what else is known.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    ids: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4 or len(self.images) != len(self.labels):
            raise InputError(
                f"images must be uint8 [n, C, H, W] with a label each, got {self.images.dtype} "
                f"{list(self.images.shape)} and {len(self.labels)} labels"
            )
        if self.labels.dtype != torch.int64 or self.labels.dim() != 1:
            raise InputError(f"labels must be int64 [n], got {self.labels.dtype} {list(self.labels.shape)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(f"labels must be from 0 to {len(self.classes) - 1}, the number of classes less one")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def group_of(self) -> Tensor:
        """The labels: rows of one class are a group."""
        return self.labels

    @property
    def groups(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def take(self, rows: Tensor) -> "ImageSet":
        """Return the images of these rows (int64 [m]), in their order."""
        numbers = rows.tolist()
        ids, hashes = (tuple(of[row] for row in numbers) if of else () for of in (self.ids, self.hashes))
        columns = {name: [values[row] for row in numbers] for name, values in self.columns.items()}
        return ImageSet(self.images[rows], self.labels[rows], self.classes, ids, hashes, columns)

    def row_hash(self, row: int) -> str:
        """Return the hash of what a row was decoded from or, where that is not known, of its pixels [C, H, W]."""
        known = self.hashes[row] if self.hashes else ""
        return known or f"sha256:{hashlib.sha256(self.images[row].contiguous().numpy().tobytes()).hexdigest()}"

    def counted_as(self, classes: tuple[str, ...]) -> "ImageSet":
        """Return the same images with labels that count other names, among which are the own."""
        if classes == self.classes:
            return self
        place = torch.tensor([classes.index(name) for name in self.classes], dtype=torch.int64)
        return replace(self, labels=place[self.labels], classes=classes)

    def fingerprint(self) -> str:
        """Return the sha256 of shape, pixels, labels and class names, in hexadecimal; computed once."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(repr((list(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Source:
    """The two tables of a source: `train` (also for validation) and `test`; same image shape, same classes.

    `notes` say, a line each, what should be known of how they were read: files that were passed over, and the like.

    Raises InputError where the two differ in either.
    """

    train: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ours, theirs = self.train.images.shape[1:], self.test.images.shape[1:]
        if ours != theirs:
            raise InputError(
                f"train images have the shape {list(ours)} and test images {list(theirs)}; set image_size and mode"
            )
        if self.train.classes != self.test.classes:
            raise InputError(
                f"the train table has the classes {_few(self.train.classes)} and the test table "
                f"{_few(self.test.classes)}; both must count the same classes in the same order"
            )

    def counted_as(self, classes: tuple[str, ...]) -> "Source":
        """Return the same tables with labels that count other names, among which are the own."""
        if classes == self.train.classes:
            return self
        return Source(self.train.counted_as(classes), self.test.counted_as(classes), self.notes)


@dataclass(frozen=True, eq=False)
class JoinedSource:
    """Two sources in one, and for each table which of its rows [n] came from the second."""

    source: Source
    train_is_other: Tensor
    test_is_other: Tensor


def join_sources(first: Source, other: Source, *, unite: bool = True) -> JoinedSource:
    """Put the rows of `other` behind those of `first`; classes of the same name become one, new ones are appended.

    Classes are matched by their whole name, case included, and several of one name in their order. With `unite` off
    all of them are appended, for models that have a head for each source. Raises InputError where the images differ in
    shape.
    """
    ours, theirs = first.train.images.shape[1:], other.train.images.shape[1:]
    if ours != theirs:
        raise InputError(
            f"images of shape {list(ours)} and {list(theirs)} cannot be joined; "
            "give both sources the same image_size and mode"
        )
    ours_names, their_names = first.train.classes, other.train.classes
    if unite:
        ours_keys, their_keys = _numbered(ours_names), _numbered(their_names)
        keys = ours_keys + [key for key in their_keys if key not in ours_keys]
        classes = tuple(name for name, _ in keys)
        place = torch.tensor([keys.index(key) for key in their_keys])
    else:
        classes, place = ours_names + their_names, torch.arange(len(their_names)) + len(ours_names)

    def join(a: ImageSet, b: ImageSet) -> ImageSet:
        images = make_room((len(a) + len(b), *a.images.shape[1:]))
        torch.cat([a.images, b.images], out=images)
        named, hashed = a.ids or b.ids, a.hashes or b.hashes
        ids = (*ids_of(a), *ids_of(b)) if named else ()
        hashes = (*(a.hashes or [""] * len(a)), *(b.hashes or [""] * len(b))) if hashed else ()
        return ImageSet(images, torch.cat([a.labels, place[b.labels]]), classes, ids, hashes)

    def is_other(a: ImageSet, b: ImageSet) -> Tensor:
        return torch.cat([torch.zeros(len(a), dtype=torch.bool), torch.ones(len(b), dtype=torch.bool)])

    return JoinedSource(
        Source(join(first.train, other.train), join(first.test, other.test), (*first.notes, *other.notes)),
        is_other(first.train, other.train),
        is_other(first.test, other.test),
    )


def _numbered(names: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(name, names[:place].count(name)) for place, name in enumerate(names)]


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
