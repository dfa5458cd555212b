"""Images and labels in memory."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from negmerge.errors import InputError


@dataclass(frozen=True)
class ImageSet:
    """Images uint8 [n, C, H, W], labels int64 [n] from 0, and the class names that the labels count."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4 or len(self.images) != len(self.labels):
            raise InputError(
                f"images must be uint8 [n, C, H, W] with a label each, got {self.images.dtype} "
                f"{list(self.images.shape)} and {len(self.labels)} labels"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(f"labels must be from 0 to {len(self.classes) - 1}, the number of classes less one")

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Return the sha256 of shape, pixels, labels and class names, in hexadecimal."""
        digest = hashlib.sha256(repr((list(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Source:
    """The two tables of a source: `train` (also for validation) and `test`; both have the same classes."""

    train: ImageSet
    test: ImageSet


@dataclass(frozen=True)
class JoinedSource:
    """Two sources in one, and for each table which of its rows [n] came from the second."""

    source: Source
    train_is_other: Tensor
    test_is_other: Tensor


def join_sources(first: Source, other: Source) -> JoinedSource:
    """Put the rows of `other` behind those of `first`; classes of the same name become one, new ones are appended.

    Raises InputError where the images differ in shape.
    """
    ours, theirs = first.train.images.shape[1:], other.train.images.shape[1:]
    if ours != theirs:
        raise InputError(
            f"images of shape {list(ours)} and {list(theirs)} cannot be joined; "
            "give both sources the same image_size and mode"
        )
    classes = first.train.classes + tuple(name for name in other.train.classes if name not in first.train.classes)
    place = torch.tensor([classes.index(name) for name in other.train.classes])

    def join(a: ImageSet, b: ImageSet) -> ImageSet:
        return ImageSet(torch.cat([a.images, b.images]), torch.cat([a.labels, place[b.labels]]), classes)

    def is_other(a: ImageSet, b: ImageSet) -> Tensor:
        return torch.cat([torch.zeros(len(a), dtype=torch.bool), torch.ones(len(b), dtype=torch.bool)])

    return JoinedSource(
        Source(join(first.train, other.train), join(first.test, other.test)),
        is_other(first.train, other.train),
        is_other(first.test, other.test),
    )
