"""Which task a config asks for: the one that it names, or that its model's family classifies by."""

from types import ModuleType
from typing import Literal

from negmerge.tasks.image_classification import preparing as image_classification
from negmerge.tasks.image_classification.family import family_of
from negmerge.tasks.image_classification.settings import ModelConfig

TaskName = Literal["image-classification", "text-classification"]


def preparing_of(model: ModelConfig, task: TaskName = "image-classification") -> ModuleType:
    """Return the module that makes a task: its `load_data`, `make_task`, `open_store`, `check_training` and the rest.

    Zero-shot classification is image classification by a family that classifies by prompts.
    """
    if task == "text-classification":
        from negmerge.tasks.text_classification import preparing as text_classification

        return text_classification
    if family_of(model.family).prepare_head is None:
        return image_classification
    from negmerge.tasks.zero_shot import preparing as zero_shot

    return zero_shot
