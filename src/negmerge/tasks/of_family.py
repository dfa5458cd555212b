"""Tasks whose models are of a family and whose rows lie in a store; those of them that classify."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.scores import Score
from negmerge.tasks.classification_scores import classification_scores
from negmerge.tasks.columns import COLUMNS
from negmerge.tasks.ensemble import join_weights
from negmerge.tasks.family_model import ClassifierModel, FamilyModel
from negmerge.tasks.rows.store import BothTables, StoredRows
from negmerge.tasks.task import Task


class FamilyTask(Task):
    """What is the same of all tasks with a family and a store; a task is a frozen dataclass that holds both.

    Left to it are the batches (`batches`, `batch`, `real_tokens`), what a model answers, losses, scores and `observe`.
    """

    tables: BothTables[Any]

    @property
    @abstractmethod
    def network(self) -> FamilyModel[Any]:
        """The family's model."""

    def rows(self) -> StoredRows:
        """Return the group of each row of both tables, the names of the groups, and the hash of everything."""
        return self.tables.rows()

    def template(self) -> nn.Module:
        """Return the model as built."""
        return self.network.build()

    def start(self, seed: int) -> nn.Module:
        """Return the model as built, or with the weights that a training of the base begins with."""
        return self.network.start(seed)

    def pretrained(self) -> dict[str, Tensor]:
        """Return the weights that the family comes with."""
        found = self.network.contents.pretrained
        assert found is not None
        weights: dict[str, Tensor] = found(self.network.checked)
        return weights

    def export(self, model: nn.Module, folder: Path) -> bool:
        """Write a model in the form in which the family's was given; False where it has none of its own."""
        export = self.network.contents.export
        if export is None:
            return False
        export(self.network.checked, model, folder)
        return True

    def open(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return the model, or the ensemble of models, with the weights of a checkpoint."""
        return self.network.load(checkpoint, device)

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device, in the layout that it is computed in."""
        return self.network.place(model, device)

    def trained(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all tensors of a model."""
        return {name: value.cpu().contiguous() for name, value in model.state_dict().items()}


class Classification(FamilyTask):
    """Rows with one class each, told apart by a classifier of a family.

    Left to a task are `batches`, `batch`, `outputs`, `observe`, `labels` and `relabel`.
    """

    classifier: ClassifierModel[Any]

    COLUMNS: ClassVar[tuple[str, ...]] = tuple(COLUMNS)

    @property
    def network(self) -> ClassifierModel[Any]:
        """The classifier."""
        return self.classifier

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.classifier.classes

    @property
    def scores(self) -> tuple[Score, ...]:
        """The accuracy on every part, and the membership attack."""
        return classification_scores(self.NOUN, self.classes)

    @abstractmethod
    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        """Return float32 logits [b, classes] of a batch, on the model's device."""

    @abstractmethod
    def labels(self, batch: Any) -> Tensor:
        """Return the labels of a batch."""

    def run_model(self, model: nn.Module, batch: Any) -> Tensor:
        """Pass a batch through a model."""
        return self.outputs(model, batch)

    def loss(self, model: nn.Module, batch: Any, settings: Any = None) -> Tensor:
        """Return the mean cross-entropy, with the label smoothing of the settings."""
        logits = self.outputs(model, batch)
        labels = self.labels(batch).to(logits.device)
        return self.classifier.loss(logits, labels, settings.label_smoothing if settings else 0.0)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the cross-entropy of each row."""
        logits = self.outputs(model, batch)
        labels = self.labels(batch).to(logits.device)
        return functional.cross_entropy(self.classifier.narrow(logits, labels), labels, reduction="none")

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a class for each label, int64 [b] on the CPU, drawn uniformly from those that the row can have."""
        return self.classifier.draw_labels(labels, generator)

    def join(self, states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors of an ensemble of classifiers."""
        return join_weights(states)
