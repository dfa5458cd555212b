"""Training classifiers on images held in memory: seeded batches, augmented, through the one loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from negmerge.tasks.image_classification.augmentation import augment
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.training.loop import Epoch, fit
from negmerge.training.settings import TrainSettings, derive_seed

Batch = tuple[Tensor, Tensor]


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
    settings: TrainSettings
    seed: int

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        full, rest = divmod(len(self.labels), self.settings.batch_size)
        return max(1, full + (rest > 1))

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
        torch.manual_seed(derive_seed(self.seed, "dropout", epoch))
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


def fit_images(
    classifier: Classifier,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: TrainSettings,
    *,
    seed: int,
    start: Epoch | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> float:
    """Train `model` in place with cross-entropy on uint8 images; return the mean loss of its last epoch.

    Batches are made on the device that the model is on, where the images fit there.
    """
    device = next(model.parameters()).device
    batches = ImageBatches(*resident(images, labels, device), settings, derive_seed(seed, settings.seed))

    def loss(module: nn.Module, batch: Batch) -> Tensor:
        logits = classifier.logits(module, classifier.prepare(batch[0].to(device)))
        return classifier.loss(logits, batch[1].to(device), settings.label_smoothing)

    return fit(model, batches, loss, settings, steps_per_epoch=batches.steps, start=start, on_epoch=on_epoch)
