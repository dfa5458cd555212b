"""From the data and model parts of a config to a task: images loaded and joined, the split drawn, the family fitted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.plug_in import file_of
from negmerge.requests.splits import Split, draw_split, split_from_file
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification.augmentation import parse_augmentation
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.family import family_of
from negmerge.tasks.image_classification.images import Source, join_sources
from negmerge.tasks.image_classification.settings import DataConfig, ModelConfig
from negmerge.tasks.image_classification.source_file import source_file
from negmerge.tasks.image_classification.store import Store, Tables
from negmerge.tasks.image_classification.task import ImageClassification

SUMMARY = "images with one class each; by prompts where the family is clip"


@dataclass(frozen=True)
class Loaded:
    """The tables of a run with their split; `class_counts` are the classes that each source brought.

    `facts` are what the task keeps of the tables beside the images.
    """

    source: Source
    split: Split
    class_counts: tuple[int, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def tables(self) -> Tables:
        """The tables, as a task reads them from memory."""
        return Tables(self.source)

    @property
    def described(self) -> dict[str, Any]:
        """The facts of the tables, as plain JSON values."""
        train, test = self.source.train, self.source.test
        return {
            "classes": list(train.classes),
            "shape": list(train.images.shape[1:]),
            "fingerprint": self.tables.rows().fingerprint(),
            "bytes": train.images.numel() + test.images.numel(),
            "notes": list(self.source.notes),
            **self.facts,
        }

    def write(self, store: Store, **facts: Any) -> None:
        """Write the tables and their facts into a store, once and for all processes."""
        pairs = {name: getattr(self.source, name) for name in ("train", "test")}
        store.write({n: (table.images, table.labels) for n, table in pairs.items()}, {**self.described, **facts})


def load_data(data: DataConfig, model: ModelConfig, *, unite: bool = True) -> Loaded:
    """Load the source of a config, with that of the forget set joined where it is another one, and draw the split.

    Images come in the form that the family wants, unless the source's settings say otherwise. Classes of the same name
    are one, unless `unite` is off: then each source keeps its own.
    """
    family = family_of(model.family)
    checked = family.Settings(**model.settings)
    form = family.image_form(checked)
    source = load_source(data.source, {**form, **data.source_settings})
    counts = [len(source.train.classes)]
    if unite and (data.forget is None or data.forget.source is None):
        source = source.counted_as(family.outputs(checked, source.train.classes))
    if data.split is not None:
        return Loaded(source, split_from_file(data.split, source.train, source.test), tuple(counts))
    assert data.forget is not None
    other = None
    if data.forget.source is not None:
        second = load_source(data.forget.source, {**form, **data.forget.source_settings})
        counts.append(len(second.train.classes))
        other = join_sources(source, second, unite=unite)
        source = other.source
        if unite:
            source = source.counted_as(family.outputs(checked, source.train.classes))
    split = draw_split(
        source.train,
        source.test,
        forget=data.forget,
        retain=data.retain,
        validation=data.validation,
        train_rows=data.train_rows,
        seed=data.seed,
        other=other,
    )
    return Loaded(source, split, tuple(counts))


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
    data: DataConfig, model: ModelConfig, compute: Compute, tables: Store | Tables, facts: Mapping[str, Any]
) -> ImageClassification:
    """Return the task: the family of a config for the images of the tables, whose facts are given."""
    channels, height, width = facts["shape"]
    shape = (channels, height, width)
    return ImageClassification(Classifier(model.family, model.settings, len(facts["classes"]), shape, compute), tables)


def load_source(name: str, settings: dict[str, Any]) -> Source:
    """Load a registered source."""
    file = source_file(name)
    return file.load(file.Settings(**settings))


def model_files(model: ModelConfig) -> Mapping[str, Path]:
    """Return the files that the family is read from, its own too, by the names that a record shows."""
    family, own = family_of(model.family), file_of(model.family)
    files = dict(family.model_files(family.Settings(**model.settings)))
    return files if own is None else {model.family: own, **files}
