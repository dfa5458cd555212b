"""Images and labels in memory."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.tasks.image_classification.room import make_room
from negmerge.tasks.rows.row_set import RowSet, RowSource


@dataclass(frozen=True, eq=False)
class ImageSet(RowSet):
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

    def content_of(self, rows: Tensor) -> dict[str, Any]:
        """Return the images of these rows, and the hashes of what they were decoded from."""
        hashes = tuple(self.hashes[row] for row in rows.tolist()) if self.hashes else ()
        return {"images": self.images[rows], "hashes": hashes}

    def content_with(self, other: "ImageSet") -> dict[str, Any]:
        """Return the images with those of another set behind. Raises InputError where they differ in shape."""
        ours, theirs = self.images.shape[1:], other.images.shape[1:]
        if ours != theirs:
            raise InputError(
                f"images of shape {list(ours)} and {list(theirs)} cannot be joined; "
                "give both sources the same image_size and mode"
            )
        images = make_room((len(self) + len(other), *ours))
        torch.cat([self.images, other.images], out=images)
        hashes = (*(self.hashes or [""] * len(self)), *(other.hashes or [""] * len(other)))
        return {"images": images, "hashes": hashes if any(hashes) else ()}

    def row_hash(self, row: int) -> str:
        """Return the hash of what a row was decoded from or, where that is not known, of its pixels [C, H, W]."""
        known = self.hashes[row] if self.hashes else ""
        return known or f"sha256:{hashlib.sha256(self.images[row].contiguous().numpy().tobytes()).hexdigest()}"

    def digest(self) -> str:
        """Return the sha256 of shape, pixels, labels and class names, in hexadecimal."""
        digest = hashlib.sha256(repr((list(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().data)
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Source(RowSource[ImageSet]):
    """The two tables of a source: `train` (also for validation) and `test`; same image shape, same classes.

    Raises InputError where the two differ in either.
    """

    def __post_init__(self) -> None:
        ours, theirs = self.train.images.shape[1:], self.test.images.shape[1:]
        if ours != theirs:
            raise InputError(
                f"train images have the shape {list(ours)} and test images {list(theirs)}; set image_size and mode"
            )
        super().__post_init__()
