"""Images with one class each: rows, models, losses and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.scores import Columns, Score
from negmerge.tasks.classification_scores import classification_scores
from negmerge.tasks.columns import COLUMNS
from negmerge.tasks.ensemble import join_weights
from negmerge.tasks.image_classification.batches import Batch, ImageBatches, resident
from negmerge.tasks.image_classification.boundary import nearest_classes
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import observe_parts
from negmerge.tasks.image_classification.store import Store, StoredRows, Tables
from negmerge.tasks.task import Task


@dataclass(frozen=True)
class ImageClassification(Task):
    """Classification of the images in a store, by a classifier that tells their classes apart.

    A batch is a pair: images, uint8 [b, C, H, W], augmented where the settings say so, and labels, int64 [b].
    """

    classifier: Classifier
    tables: Store | Tables

    NAME: ClassVar[str] = "image-classification"
    NOUN: ClassVar[str] = "image"
    COLUMNS: ClassVar[tuple[str, ...]] = tuple(COLUMNS)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.classifier.classes

    @property
    def scores(self) -> tuple[Score, ...]:
        """The accuracy on every part, and the membership attack."""
        return classification_scores(self.NOUN, self.classes)

    def rows(self) -> StoredRows:
        """Return the labels of both tables, the class names, and the hash of everything."""
        return self.tables.rows()

    def template(self) -> nn.Module:
        """Return the model as built."""
        return self.classifier.build()

    def start(self, seed: int) -> nn.Module:
        """Return the model as built, or with the family's published weights."""
        return self.classifier.start(seed)

    def pretrained(self) -> dict[str, Tensor]:
        """Return the weights that the family comes with."""
        family = self.classifier.contents
        assert family.pretrained is not None
        return family.pretrained(self.classifier.checked)

    def export(self, model: nn.Module, folder: Path) -> bool:
        """Write a model in the form in which the family's was given; False where it has none of its own."""
        family = self.classifier.contents
        if family.export is None:
            return False
        family.export(self.classifier.checked, model, folder)
        return True

    def open(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return the model, or the ensemble of models, with the weights of a checkpoint."""
        return self.classifier.load(checkpoint, device)

    def uncompiled(self) -> "ImageClassification":
        """Return the task whose forward passes are not compiled."""
        compute = replace(self.classifier.compute, compile=False)
        return replace(self, classifier=replace(self.classifier, compute=compute))

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device, in the layout that it is computed in."""
        return self.classifier.place(model, device)

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all tensors of a model."""
        return {name: value.cpu().contiguous() for name, value in model.state_dict().items()}

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> ImageBatches:
        """Return augmented batches, made on the device where the images fit there."""
        return ImageBatches(*resident(*self.tables.both().take(rows), device), settings, seed)

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """Return images and labels of these rows, on the device."""
        images, labels = self.tables.both().take(rows)
        return images.to(device), labels.to(device)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return float32 logits [b, classes] of a batch, on the model's device."""
        device = next(model.parameters()).device
        return self.classifier.logits(model, self.classifier.prepare(batch[0].to(device)))

    def run_model(self, model: nn.Module, batch: Batch) -> Tensor:
        """Pass a batch through a model."""
        return self.outputs(model, batch)

    def loss(self, model: nn.Module, batch: Batch, settings: Any = None) -> Tensor:
        """Return the mean cross-entropy, with the label smoothing of the settings."""
        logits = self.outputs(model, batch)
        return self.classifier.loss(logits, batch[1].to(logits.device), settings.label_smoothing if settings else 0.0)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy of each row."""
        logits = self.outputs(model, batch)
        labels = batch[1].to(logits.device)
        return functional.cross_entropy(self.classifier.narrow(logits, labels), labels, reduction="none")

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return the columns `correct`, `loss`, `confidence` and `group` of parts, as far as they are asked for."""
        return observe_parts(self.classifier, model, self.tables.both().take, parts, columns)

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels of a batch."""
        return batch[1]

    def relabel(self, batch: Batch, labels: Tensor) -> Batch:
        """Return the images with other labels."""
        return batch[0], labels

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a class for each label, int64 [b] on the CPU, drawn uniformly from those of the label's head."""
        return self.classifier.draw_labels(labels, generator)

    def nearest_labels(self, model: nn.Module, batch: Batch, bound: float) -> Tensor:
        """Return the class across the nearest boundary of each image; see `nearest_classes`."""
        device = next(model.parameters()).device
        return nearest_classes(self.classifier, model, batch[0].to(device), batch[1].to(device), bound)

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of an ensemble of classifiers."""
        return join_weights(states)
