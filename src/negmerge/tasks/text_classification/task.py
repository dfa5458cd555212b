"""Texts with one class each: rows, models, losses and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from negmerge.scores import Columns
from negmerge.tasks.of_family import Classification
from negmerge.tasks.rows.store import BothTables
from negmerge.tasks.text_classification.batches import Batch, TextBatches, pad
from negmerge.tasks.text_classification.classifier import TextClassifier
from negmerge.tasks.text_classification.inference import observe_parts
from negmerge.tasks.text_classification.store import SHOWN, TokenTable


@dataclass(frozen=True)
class TextClassification(Classification):
    """Classification of the texts in a store, by a classifier that tells their classes apart."""

    classifier: TextClassifier
    tables: BothTables[TokenTable]

    NAME: ClassVar[str] = "text-classification"
    NOUN: ClassVar[str] = "text"

    def batches(self, rows: Tensor, settings: Any, seed: int, device: torch.device | str) -> TextBatches:
        """Return shuffled batches of rows of like lengths."""
        return TextBatches(self.tables.both, rows, settings, self.classifier.padding, seed, device)

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """Return these rows, padded to the longest, on the device."""
        found, labels = self.tables.both.take(rows)
        return pad(found, labels, self.classifier.padding).to(device)

    def outputs(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return float32 logits [b, classes] of a batch, on the model's device."""
        return self.classifier.logits(model, batch.to(next(model.parameters()).device))

    def real_tokens(self, batch: Batch) -> Tensor:
        """Return where a batch has tokens and no padding, bool [b, L]."""
        return batch.mask.bool()

    def observe(
        self, model: nn.Module, parts: Mapping[str, Tensor], columns: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Columns]:
        """Return the columns `correct`, `loss`, `confidence` and `group` of parts, as far as they are asked for."""
        return observe_parts(self.classifier, model, self.tables.both, parts, columns)

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels of a batch."""
        return batch.labels

    def relabel(self, batch: Batch, labels: Tensor) -> Batch:
        """Return the texts with other labels."""
        return batch._replace(labels=labels)

    def show(self, row: int) -> str | None:
        """Return the beginning of a text of the test table, where it is kept; of others there are tokens alone."""
        shown, first = self.tables.facts.get(SHOWN) or [], len(self.tables.table("train"))
        return str(shown[row - first]) if first <= row < first + len(shown) else None
