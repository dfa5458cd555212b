"""Which task a config asks for: the one that it names, or that its model's family classifies by."""

from negmerge import registry
from negmerge.errors import InputError
from negmerge.tasks.image_classification.family import family_of
from negmerge.tasks.preparing import Preparing
from negmerge.tasks.settings import ModelConfig

IMAGES, PROMPTED = "image-classification", "zero-shot"


def preparing_of(model: ModelConfig, task: str = IMAGES) -> Preparing:
    """Return what makes a task of a config: its `load_data`, `make_task`, `open_store`, `check_training` and the rest.

    Zero-shot classification is image classification by a family that classifies by prompts. Raises InputError for an
    unknown task, for a file that lacks something, and for zero-shot by a family without prompts.
    """
    if task in (IMAGES, PROMPTED):
        prompted = family_of(model.family).prepare_head is not None
        if task == PROMPTED and not prompted:
            raise InputError(f"task: {PROMPTED} needs a family that classifies by prompts (clip), not {model.family}")
        task = PROMPTED if prompted else IMAGES
    return registry.read("tasks", task, Preparing)
