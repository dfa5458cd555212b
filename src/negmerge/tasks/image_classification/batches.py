"""Seeded batches of images held in memory, augmented."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from negmerge.tasks.image_classification.augmentation import augment
from negmerge.tasks.rows.epochs import begin_epoch

Batch = tuple[Tensor, Tensor]


class BatchSettings(Protocol):
    """The training settings that batches of images heed."""

    @property
    def batch_size(self) -> int:
        """Rows in a batch."""
        ...

    @property
    def augment(self) -> str:
        """See `parse_augmentation`."""
        ...


@dataclass(frozen=True)
class ImageBatches:
    """Seeded, augmented batches of uint8 images [n, C, H, W] with labels [n].

    Epoch e is a permutation drawn from (seed, e) alone, so training can go on from any epoch; torch's global random
    numbers, from which dropout draws, are seeded from the same. A last batch of one row is left out: batch statistics
    of one row do not exist. Draws are made on the CPU and batches where the images are, so that no device changes them
    (but for RandAugment's, which are a device's own).
    """

    images: Tensor
    labels: Tensor
    settings: BatchSettings
    seed: int

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        full, rest = divmod(len(self.labels), self.settings.batch_size)
        return max(1, full + (rest > 1))

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        generator = begin_epoch(self.seed, epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        for rows in order.split(self.settings.batch_size)[: self.steps]:
            batch = augment(self.images, self.settings.augment, generator, rows)
            yield batch, self.labels[rows.to(self.labels.device)]


def resident(images: Tensor, labels: Tensor, device: torch.device | str) -> Batch:
    """Return images and labels on the device they are used on, where they fill at most half of its free memory.

    Otherwise, and on the CPU, they are returned as they are, to be moved batch by batch.
    """
    place = torch.device(device)
    if place.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(place)[0] / 2:
        return images, labels
    return images.to(place), labels.to(place)
