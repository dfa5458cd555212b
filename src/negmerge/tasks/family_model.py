"""Models of a family: what the file of every kind of family may hold, and a model as its task sees it."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.compute import Compute
from negmerge.tasks.ensemble import load_classifier


def nothing(settings: Any) -> dict[str, Any]:
    """Return what is there where a family's file says nothing."""
    return {}


def _as_data(settings: Any, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(classes)


@dataclass(frozen=True, kw_only=True)
class FamilyFile:
    """The contents of a family's file, as far as they are the same whatever a row is.

    `Settings` is pydantic, unknown keys are errors. `build(settings, …, seed)` returns a module, freshly initialised;
    what stands between, number of classes or form of a row, is the task's affair, as for `start(settings, …, seed)`,
    which returns what a training of the base begins with. `outputs(settings, classes)` returns the names of the
    outputs for data with these classes, among which they are; `pretrained(settings)` the weights that the family comes
    with (base: {pretrained: true}). `model_files(settings)` are the files that all this is read from, by the names that
    a record shows: they are hashed when a run begins and must be the same where it is resumed.
    `export(settings, model, folder)` writes a model in the form in which it was given.
    """

    SUMMARY: str
    Settings: Any
    build: Callable[..., nn.Module]
    outputs: Callable[[Any, Sequence[str]], tuple[str, ...]] = _as_data
    start: Callable[..., nn.Module] | None = None
    pretrained: Callable[[Any], dict[str, Tensor]] | None = None
    model_files: Callable[[Any], Mapping[str, Path]] = nothing
    export: Callable[[Any, nn.Module, Path], None] | None = None


File = TypeVar("File", bound=FamilyFile)


@dataclass(frozen=True)
class FamilyModel(ABC, Generic[File]):
    """A family with its settings; what a kind of models adds are further fields, names and numbers only.

    So it can be sent to another process.
    """

    family: str
    settings: Mapping[str, Any]

    @property
    @abstractmethod
    def contents(self) -> File:
        """What the family's file holds."""

    @property
    @abstractmethod
    def compute(self) -> Compute:
        """How models are computed."""

    @property
    @abstractmethod
    def about(self) -> str:
        """What is built, in words, for a checkpoint that does not fit."""

    @abstractmethod
    def build(self, seed: int = 0) -> nn.Module:
        """Return a freshly initialised model."""

    @abstractmethod
    def start(self, seed: int) -> nn.Module:
        """Return the model that a training of the base begins with."""

    @cached_property
    def checked(self) -> Any:
        """The family's own settings object."""
        return self.contents.Settings(**self.settings)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: self.__dict__[field.name] for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def place(self, model: nn.Module, device: torch.device | str) -> nn.Module:
        """Move a model to a device, in place, and return it."""
        return model.to(device)

    def load(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return the model with the weights of `checkpoint`; all its tensors must fit, and no other may be there.

        Wrappers in its names (`module.`, `_orig_mod.`, …) are taken off.
        A checkpoint whose names are those of an ensemble gives an `Ensemble` of the family.
        """
        return self.place(load_classifier(self.build, checkpoint, self.about), device).eval()


@dataclass(frozen=True)
class ClassifierModel(FamilyModel[File]):
    """A family whose models tell so many classes apart."""

    classes: int

    def narrow(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return logits [b, classes] with −inf for the classes that a row with this label [b] cannot have: none."""
        return logits

    def loss(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of logits [b, classes]."""
        return functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def draw_labels(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return a class for each label, int64 [b] on the CPU, drawn uniformly."""
        return torch.randint(self.classes, labels.shape, generator=generator)
