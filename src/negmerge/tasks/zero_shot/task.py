"""Images told apart by prompts of their classes, each data set by its own head."""

from dataclasses import dataclass
from typing import ClassVar

from negmerge.tasks.image_classification.task import ImageClassification


@dataclass(frozen=True)
class ZeroShot(ImageClassification):
    """Classification of images by text heads; a row's answer and its loss are those in the head of its data set."""

    NAME: ClassVar[str] = "zero-shot"
