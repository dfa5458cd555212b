"""A text classifier as the task sees it: a family, its settings, and the number of its classes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.tasks.compute import Compute
from negmerge.tasks.ensemble import Ensemble, load_classifier
from negmerge.tasks.text_classification.batches import Batch
from negmerge.tasks.text_classification.family import TextFamily, family_of

PLAIN = Compute()


@dataclass(frozen=True)
class TextClassifier:
    """A family with checked settings, the number of classes, and how to compute.

    It holds names and numbers only, so it can be sent to another process.
    """

    family: str
    settings: Mapping[str, Any]
    classes: int
    compute: Compute = PLAIN

    @cached_property
    def contents(self) -> TextFamily:
        """What the family's file holds."""
        return family_of(self.family)

    @cached_property
    def checked(self) -> Any:
        """The family's own settings object."""
        return self.contents.Settings(**self.settings)

    @cached_property
    def padding(self) -> int:
        """The number of the token behind the end of a text."""
        return self.contents.padding(self.checked)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("family", "settings", "classes", "compute")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def build(self, seed: int = 0) -> nn.Module:
        """Return a freshly initialised model."""
        return self.contents.build(self.checked, self.classes, seed)

    def start(self, seed: int) -> nn.Module:
        """Return the model that a training of the base begins with."""
        begin = self.contents.start or self.contents.build
        return begin(self.checked, self.classes, seed)

    def load(self, checkpoint: Path, device: torch.device | str = "cpu") -> nn.Module:
        """Return the model, or the ensemble, with the weights of `checkpoint`; all its tensors must fit."""
        what = f"{self.family} with {self.classes} classes"
        return load_classifier(self.build, checkpoint, what).to(device).eval()

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return float32 logits [b, classes] of a batch, which is on the model's device."""
        contents = self.contents

        def one(module: nn.Module, inputs: Batch) -> Tensor:
            return contents.logits(module, inputs.ids, inputs.mask)

        with self.compute.autocast(batch.ids.device.type):
            logits = model.logits(one, batch) if isinstance(model, Ensemble) else one(model, batch)
        return logits.float()
