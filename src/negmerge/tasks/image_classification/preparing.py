"""From the data and model parts of a config to a task: images loaded and joined, the split drawn, the family fitted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification.augmentation import parse_augmentation
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.family import family_of
from negmerge.tasks.image_classification.images import Source
from negmerge.tasks.image_classification.source_file import source_file
from negmerge.tasks.image_classification.store import ImageTable, Store, tables_of
from negmerge.tasks.image_classification.task import ImageClassification
from negmerge.tasks.rows.loading import LoadedRows, family_files, join_and_split, load_rows
from negmerge.tasks.rows.store import BothTables
from negmerge.tasks.settings import DataConfig, ModelConfig

SUMMARY = "images with one class each; by prompts where the family is clip"


Loaded = LoadedRows[Source, ImageTable]


def load_data(data: DataConfig, model: ModelConfig, *, unite: bool = True) -> Loaded:
    """Load the source of a config, with that of the forget set joined where it is another one, and draw the split.

    Images come in the form that the family wants, unless the source's settings say otherwise. Classes of the same name
    are one, unless `unite` is off: then each source keeps its own.
    """
    family = family_of(model.family)
    checked = family.Settings(**model.settings)
    form = family.image_form(checked)

    def load(name: str, settings: Mapping[str, Any]) -> Source:
        return load_source(name, {**form, **settings})

    def outputs(classes: Sequence[str]) -> tuple[str, ...]:
        return family.outputs(checked, classes)

    found = join_and_split(data, load, outputs if unite else None)
    return LoadedRows(found.source, found.split, tables_of(found.source), found.class_counts)


def open_store(directory: Path) -> Store:
    """Return the store of a run's decoded images in a folder."""
    return Store(directory)


def check_training(augment: str, where: str) -> None:
    """Raise InputError, naming the place in a config, for an augmentation that is not known."""
    try:
        parse_augmentation(augment)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def make_task(
    data: DataConfig, model: ModelConfig, compute: Compute, tables: BothTables[ImageTable], facts: Mapping[str, Any]
) -> ImageClassification:
    """Return the task: the family of a config for the images of the tables, whose facts are given."""
    channels, height, width = facts["shape"]
    shape = (channels, height, width)
    return ImageClassification(Classifier(model.family, model.settings, len(facts["classes"]), shape, compute), tables)


def load_source(name: str, settings: Mapping[str, Any]) -> Source:
    """Load a registered source."""
    return load_rows(source_file(name), settings)


def model_files(model: ModelConfig) -> Mapping[str, Path]:
    """Return the files that the family is read from, its own too, by the names that a record shows."""
    return family_files(model, family_of(model.family))
