"""Images told apart by prompts of their classes, each data set by its own head."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from negmerge.tasks.image_classification.task import ImageClassification


@dataclass(frozen=True)
class ZeroShot(ImageClassification):
    """Classification of images by text heads; a row's answer and its loss are those in the head of its data set."""

    NAME: ClassVar[str] = "zero-shot"

    def outputs(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return float32 logits [b, classes] of a batch, −inf for the classes of other heads than the row's own."""
        logits = super().outputs(model, batch)
        return self.classifier.narrow(logits, batch[1].to(logits.device))
