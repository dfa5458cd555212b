"""From the data and model parts of a config to a zero-shot task: a text head for the class prompts of each source."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification import preparing as images
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.family import family_of
from negmerge.tasks.image_classification.preparing import Loaded, check_training, model_files, open_store
from negmerge.tasks.image_classification.source_file import source_file
from negmerge.tasks.image_classification.store import ImageTable, tables_of
from negmerge.tasks.rows.store import BothTables
from negmerge.tasks.settings import DataConfig, ModelConfig, source_names
from negmerge.tasks.zero_shot.task import ZeroShot

__all__ = ["check_training", "family_of", "load_data", "make_task", "model_files", "open_store", "source_file"]

SUMMARY = "images with one class each, told apart by prompts: image-classification by the family clip"


def load_data(data: DataConfig, model: ModelConfig) -> Loaded:
    """Load the sources and draw the split; each source keeps its own classes, and its own templates.

    Raises InputError for sources that the family refuses, before any image is decoded where their classes are known.
    """
    names = source_names(data)
    _check_prompts(model, [(name, *_known_prompts(name)) for name in names])
    loaded = images.load_data(data, model, unite=False)
    sizes = loaded.class_counts
    classes = list(loaded.source.train.classes)
    prompts, start = [], 0
    for name, size in zip(names, sizes, strict=True):
        prompts.append((classes[start : start + size], _templates(name)))
        start += size
    return replace(loaded, tables=tables_of(loaded.source, prompts=prompts))


def make_task(
    data: DataConfig, model: ModelConfig, compute: Compute, tables: BothTables[ImageTable], facts: Mapping[str, Any]
) -> ZeroShot:
    """Return the task: the family with a text head for each source, made of its class names and templates.

    Raises InputError for sources that the family refuses.
    """
    channels, height, width = facts["shape"]
    prompts = facts["prompts"]
    sized = zip(source_names(data), prompts, strict=True)
    _check_prompts(model, [(name, len(names), own) for name, (names, own) in sized])
    family = family_of(model.family)
    checked = family.Settings(**model.settings)
    assert family.prepare_head is not None
    head = family.prepare_head(checked, prompts)
    heads = tuple(len(names) for names, _ in prompts)
    settings = family.pinned(checked) if family.pinned is not None else model.settings
    shape = (channels, height, width)
    classifier = Classifier(model.family, settings, len(facts["classes"]), shape, compute, heads, head)
    return ZeroShot(classifier, tables)


def _check_prompts(model: ModelConfig, sources: Sequence[tuple[str, int, Sequence[str] | None]]) -> None:
    family = family_of(model.family)
    family.check_prompts(family.Settings(**model.settings), sources)


def _known_prompts(source: str) -> tuple[int, Sequence[str] | None]:
    """Return the number of classes and the templates that a source is known to have; 0 classes where it is not."""
    facts = source_file(source).FACTS
    return (0, None) if facts is None else (facts.count, facts.templates)


def _templates(source: str) -> list[str] | None:
    templates = source_file(source).TEMPLATES
    return None if templates is None else list(templates)
