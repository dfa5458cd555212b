"""Images with one class each: rows, models, losses and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from negmerge.scores import Columns
from negmerge.tasks.image_classification.batches import Batch, ImageBatches, resident
from negmerge.tasks.image_classification.boundary import nearest_classes
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import observe_parts
from negmerge.tasks.image_classification.store import ImageTable
from negmerge.tasks.of_family import Classification
from negmerge.tasks.rows.store import BothTables


@dataclass(frozen=True)
class ImageClassification(Classification):
    """Classification of the images in a store, by a classifier that tells their classes apart.

    A batch is a pair: images, uint8 [b, C, H, W], augmented where the settings say so, and labels, int64 [b].
    """

    classifier: Classifier
    tables: BothTables[ImageTable]

    NAME: ClassVar[str] = "image-classification"
    NOUN: ClassVar[str] = "image"

    def uncompiled(self) -> "ImageClassification":
        """Return the task whose forward passes are not compiled."""
        compute = replace(self.classifier.compute, compile=False)
        return replace(self, classifier=replace(self.classifier, compute=compute))

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> ImageBatches:
        """Return augmented batches, made on the device where the images fit there."""
        images, labels = self.tables.both.take(rows)
        return ImageBatches(*resident(images, labels, device), settings, seed)

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """Return images and labels of these rows, on the device."""
        images, labels = self.tables.both.take(rows)
        return images.to(device), labels.to(device)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return float32 logits [b, classes] of a batch, on the model's device."""
        device = next(model.parameters()).device
        return self.classifier.logits(model, self.classifier.prepare(batch[0].to(device)))

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return the columns `correct`, `loss`, `confidence` and `group` of parts, as far as they are asked for."""
        return observe_parts(self.classifier, model, self.tables.both.take, parts, columns)

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels of a batch."""
        return batch[1]

    def relabel(self, batch: Batch, labels: Tensor) -> Batch:
        """Return the images with other labels."""
        return batch[0], labels

    def show(self, row: int) -> Tensor | None:
        """Return the image of a row; None for one with other channels than grey or red, green and blue."""
        image: Tensor = self.tables.both.take(torch.tensor([row]))[0][0]
        return image if image.shape[0] in (1, 3) else None

    def nearest_labels(self, model: nn.Module, batch: Batch, bound: float) -> Tensor:
        """Return the class across the nearest boundary of each image; see `nearest_classes`."""
        device = next(model.parameters()).device
        return nearest_classes(self.classifier, model, batch[0].to(device), batch[1].to(device), bound)
