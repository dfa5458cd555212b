"""From the data and model parts of a config to a task: texts loaded and encoded, the split drawn, the family fitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from negmerge.errors import InputError
from negmerge.plug_in import file_of
from negmerge.requests.split_files import fingerprint
from negmerge.requests.splits import Split, draw_split, split_from_file
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification.settings import DataConfig, ModelConfig
from negmerge.tasks.text_classification.classifier import TextClassifier
from negmerge.tasks.text_classification.family import family_of
from negmerge.tasks.text_classification.source_file import source_file
from negmerge.tasks.text_classification.store import EncodedTables, TokenStore, TokenTable, table_of
from negmerge.tasks.text_classification.task import TextClassification
from negmerge.tasks.text_classification.texts import TextSource, join_texts

__all__ = ["check_training", "family_of", "load_data", "make_task", "model_files", "open_store", "source_file"]

SUMMARY = "texts with one class each"


@dataclass(frozen=True)
class LoadedTexts:
    """The tables of a run with their split; `encoded` are their tokens, as the family has them."""

    source: TextSource
    split: Split
    encoded: tuple[TokenTable, TokenTable]

    @property
    def tables(self) -> EncodedTables:
        """The tables, as a task reads them from memory."""
        return EncodedTables(self.encoded, self.described)

    @cached_property
    def described(self) -> dict[str, Any]:
        """The facts of the tables, as plain JSON values."""
        train, test = self.source.train, self.source.test
        return {
            "classes": list(train.classes),
            "fingerprint": fingerprint(train, test),
            "bytes": sum(table.tokens.nbytes for table in self.encoded),
        }

    def write(self, store: TokenStore, **facts: Any) -> None:
        """Write the tables and their facts into a store, once and for all processes."""
        store.write(self.encoded, {**self.described, **facts})


def open_store(directory: Path) -> TokenStore:
    """Return the store of a run's encoded texts in a folder."""
    return TokenStore(directory)


def load_data(data: DataConfig, model: ModelConfig) -> LoadedTexts:
    """Load the source of a config, with that of the forget set joined where it is another one, and draw the split.

    The classes are counted as the model's outputs are. Raises InputError for classes that the model does not have.
    """
    family = family_of(model.family)
    settings = family.Settings(**model.settings)
    source, other = load_source(data.source, data.source_settings), None
    if data.forget is not None and data.forget.source is not None:
        other = join_texts(source, load_source(data.forget.source, data.forget.source_settings))
        source = other.source
    source = source.counted_as(family.outputs(settings, source.train.classes))
    if data.split is not None:
        split = split_from_file(data.split, source.train, source.test)
    else:
        assert data.forget is not None
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
    train, test = (table_of(family.encode(settings, t.texts), t.labels) for t in (source.train, source.test))
    return LoadedTexts(source, split, (train, test))


def load_source(name: str, settings: dict[str, Any]) -> TextSource:
    """Load a registered source."""
    file = source_file(name)
    return file.load(file.Settings(**settings))


def check_training(augment: str, where: str) -> None:
    """Raise InputError, naming the place in a config, for an augmentation: texts have none."""
    if augment != "none":
        raise InputError(f"{where}: augment: {augment} is for images; leave it out")


def make_task(
    data: DataConfig, model: ModelConfig, compute: Compute, tables: TokenStore | EncodedTables, facts: Mapping[str, Any]
) -> TextClassification:
    """Return the task: the family of a config for the texts of the tables, whose facts are given."""
    return TextClassification(TextClassifier(model.family, model.settings, len(facts["classes"]), compute), tables)


def model_files(model: ModelConfig) -> Mapping[str, Path]:
    """Return the files that the family is read from, its own too, by the names that a record shows."""
    family, own = family_of(model.family), file_of(model.family)
    files = dict(family.model_files(family.Settings(**model.settings)))
    return files if own is None else {model.family: own, **files}
