"""Texts with one class each: rows, models, losses and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.scores import Columns, Score
from negmerge.tasks.classification_scores import classification_scores
from negmerge.tasks.columns import COLUMNS
from negmerge.tasks.ensemble import join_weights
from negmerge.tasks.task import Task
from negmerge.tasks.text_classification.batches import Batch, TextBatches, pad
from negmerge.tasks.text_classification.classifier import TextClassifier
from negmerge.tasks.text_classification.inference import observe_parts
from negmerge.tasks.text_classification.store import EncodedTables, TextRows, TokenStore, TokenTable


@dataclass(frozen=True)
class TextClassification(Task):
    """Classification of the texts in a store, by a classifier that tells their classes apart."""

    classifier: TextClassifier
    tables: TokenStore | EncodedTables

    NAME: ClassVar[str] = "text-classification"
    NOUN: ClassVar[str] = "text"
    COLUMNS: ClassVar[tuple[str, ...]] = tuple(COLUMNS)

    def __getstate__(self) -> dict[str, Any]:
        return {"classifier": self.classifier, "tables": self.tables}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @cached_property
    def _table(self) -> TokenTable:
        return self.tables.both()

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.classifier.classes

    @property
    def scores(self) -> tuple[Score, ...]:
        """The accuracy on every part, and the membership attack."""
        return classification_scores(self.NOUN, self.classes)

    def rows(self) -> TextRows:
        """Return the labels of both tables, the class names, and the hash of everything."""
        return self.tables.rows()

    def template(self) -> nn.Module:
        """Return the model as built."""
        return self.classifier.build()

    def start(self, seed: int) -> nn.Module:
        """Return the model as built, or with the weights that a training of the base begins with."""
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

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device."""
        return model.to(device)

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all tensors of a model."""
        return {name: value.cpu().contiguous() for name, value in model.state_dict().items()}

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> TextBatches:
        """Return shuffled batches of rows of like lengths."""
        return TextBatches(self._table, rows, settings, self.classifier.padding, seed, device)

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """Return these rows, padded to the longest, on the device."""
        return pad(*self._table.take(rows), self.classifier.padding).to(device)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return float32 logits [b, classes] of a batch, on the model's device."""
        return self.classifier.logits(model, batch.to(next(model.parameters()).device))

    def run_model(self, model: nn.Module, batch: Batch) -> Tensor:
        """Pass a batch through a model."""
        return self.outputs(model, batch)

    def real_tokens(self, batch: Batch) -> Tensor:
        """Return where a batch has tokens and no padding, bool [b, L]."""
        return batch.mask.bool()

    def loss(self, model: nn.Module, batch: Batch, settings: Any = None) -> Tensor:
        """Return the mean cross-entropy, with the label smoothing of the settings."""
        logits = self.outputs(model, batch)
        smoothing = settings.label_smoothing if settings else 0.0
        return functional.cross_entropy(logits, batch.labels.to(logits.device), label_smoothing=smoothing)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the cross-entropy of each row."""
        logits = self.outputs(model, batch)
        return functional.cross_entropy(logits, batch.labels.to(logits.device), reduction="none")

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return the columns `correct`, `loss`, `confidence` and `group` of parts, as far as they are asked for."""
        return observe_parts(self.classifier, model, self._table, parts, columns)

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels of a batch."""
        return batch.labels

    def relabel(self, batch: Batch, labels: Tensor) -> Batch:
        """Return the texts with other labels."""
        return batch._replace(labels=labels)

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a class for each label, int64 [b] on the CPU, drawn uniformly."""
        return torch.randint(self.classes, labels.shape, generator=generator)

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of an ensemble of classifiers."""
        return join_weights(states)
