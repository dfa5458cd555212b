"""From the data and model parts of a config to a task: texts loaded and encoded, the split drawn, the family fitted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.tasks.compute import Compute
from negmerge.tasks.rows.loading import LoadedRows, facts_of, family_files, join_and_split, load_rows
from negmerge.tasks.rows.loading import refuse_augmentation as check_training
from negmerge.tasks.rows.store import BothTables, MemoryTables
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.tasks.text_classification.classifier import TextClassifier
from negmerge.tasks.text_classification.family import family_of
from negmerge.tasks.text_classification.source_file import source_file
from negmerge.tasks.text_classification.store import SHOWN, TokenStore, TokenTable, table_of
from negmerge.tasks.text_classification.task import TextClassification
from negmerge.tasks.text_classification.texts import TextSource

__all__ = ["check_training", "family_of", "load_data", "make_task", "model_files", "open_store", "source_file"]

SUMMARY = "texts with one class each"
MOST_SHOWN, CHARACTERS = 2000, 300  # test texts whose beginnings are kept to be shown, and how much of each


def open_store(directory: Path) -> TokenStore:
    """Return the store of a run's encoded texts in a folder."""
    return TokenStore(directory)


def load_data(data: DataConfig, model: ModelConfig) -> LoadedRows[TextSource, TokenTable]:
    """Load the source of a config, with that of the forget set joined where it is another one, and draw the split.

    The classes are counted as the model's outputs are. Raises InputError for classes that the model does not have.
    """
    family = family_of(model.family)
    settings = family.Settings(**model.settings)

    def outputs(classes: Sequence[str]) -> tuple[str, ...]:
        return family.outputs(settings, classes)

    found = join_and_split(data, load_source, outputs)
    source = found.source
    train, test = (table_of(family.encode(settings, t.texts), t.labels) for t in (source.train, source.test))
    shown = [text[:CHARACTERS] for text in source.test.texts[:MOST_SHOWN]]  # nobody asked to forget these very ones
    facts = {**facts_of(source, train.tokens.nbytes + test.tokens.nbytes), SHOWN: shown}
    return LoadedRows(source, found.split, MemoryTables(train, test, facts), found.class_counts)


def load_source(name: str, settings: Mapping[str, Any]) -> TextSource:
    """Load a registered source."""
    return load_rows(source_file(name), settings)


def make_task(
    data: DataConfig, model: ModelConfig, compute: Compute, tables: BothTables[TokenTable], facts: Mapping[str, Any]
) -> TextClassification:
    """Return the task: the family of a config for the texts of the tables, whose facts are given."""
    return TextClassification(TextClassifier(model.family, model.settings, len(facts["classes"]), compute), tables)


def model_files(model: ModelConfig) -> Mapping[str, Path]:
    """Return the files that the family is read from, its own too, by the names that a record shows."""
    return family_files(model, family_of(model.family))
