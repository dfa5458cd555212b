"""Which task a config asks for: the one that its model's family classifies by."""

from types import ModuleType

from negmerge.tasks.image_classification import preparing as image_classification
from negmerge.tasks.image_classification.family import family_of
from negmerge.tasks.image_classification.settings import ModelConfig


def preparing_of(model: ModelConfig) -> ModuleType:
    """Return the module that makes the task of a family: its `load_data`, `make_task` and `check_training`."""
    if family_of(model.family).prepare_head is None:
        return image_classification
    from negmerge.tasks.zero_shot import preparing as zero_shot

    return zero_shot
