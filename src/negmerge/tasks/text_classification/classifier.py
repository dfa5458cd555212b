"""A text classifier as the task sees it: a family, its settings, and the number of its classes."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from negmerge.tasks.compute import Compute
from negmerge.tasks.ensemble import Ensemble
from negmerge.tasks.family_model import ClassifierModel
from negmerge.tasks.text_classification.batches import Batch
from negmerge.tasks.text_classification.family import TextFamily, family_of

PLAIN = Compute()


@dataclass(frozen=True)
class TextClassifier(ClassifierModel[TextFamily]):
    """A family with checked settings, the number of classes, and how to compute.

    It holds names and numbers only, so it can be sent to another process.
    """

    compute: Compute = PLAIN

    @cached_property
    def contents(self) -> TextFamily:
        """What the family's file holds."""
        return family_of(self.family)

    @property
    def about(self) -> str:
        """What is built, in words."""
        return f"{self.family} with {self.classes} classes"

    @cached_property
    def padding(self) -> int:
        """The number of the token behind the end of a text."""
        return self.contents.padding(self.checked)

    def build(self, seed: int = 0) -> nn.Module:
        """Return a freshly initialised model."""
        return self.contents.build(self.checked, self.classes, seed)

    def start(self, seed: int) -> nn.Module:
        """Return the model that a training of the base begins with."""
        begin = self.contents.start or self.contents.build
        return begin(self.checked, self.classes, seed)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return float32 logits [b, classes] of a batch, which is on the model's device."""
        contents = self.contents

        def one(module: nn.Module, inputs: Batch) -> Tensor:
            return contents.logits(module, inputs.ids, inputs.mask)

        with self.compute.autocast(batch.ids.device.type):
            logits = model.logits(one, batch) if isinstance(model, Ensemble) else one(model, batch)
        return logits.float()
