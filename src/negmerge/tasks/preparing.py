"""What the file of a task may hold: how a config's data and model become rows, a split and a task.

The file of a plug-in is read as this; of the tasks of the package it is the module `preparing` of each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel
from torch import nn

from negmerge.errors import InputError, nearest
from negmerge.requests.rows import Rows
from negmerge.requests.splits import Split
from negmerge.tasks.compute import Compute
from negmerge.tasks.rows.loading import refuse_augmentation
from negmerge.tasks.settings import DataConfig, ModelConfig
from negmerge.tasks.task import Task
from negmerge.tasks.tensor_tables import TensorStore

Part = TypeVar("Part")


class Pair(Protocol):
    """The train table, from which validation rows are taken too, and the test table."""

    @property
    def train(self) -> Rows:
        """The rows to train on."""
        ...

    @property
    def test(self) -> Rows:
        """The rows that no model of the run has seen."""
        ...


class Store(Protocol):
    """The folder of a run in which the rows are kept, for all its processes and for going on."""

    @property
    def exists(self) -> bool:
        """Whether the folder was written to its end."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `Loaded.described` was when the folder was written."""
        ...

    def table(self, name: str) -> Any:
        """Return the table `train` or `test`, whose length is its number of rows."""
        ...


class Loaded(Protocol):
    """Rows in memory, with their split."""

    @property
    def source(self) -> Pair:
        """Both tables, as requests see them."""
        ...

    @property
    def split(self) -> Split:
        """Which rows are forgotten, retained and held out."""
        ...

    @property
    def tables(self) -> Any:
        """What `make_task` takes in the place of a store."""
        ...

    @property
    def described(self) -> Mapping[str, Any]:
        """JSON values: `fingerprint` (of both tables), `bytes`, and perhaps `notes`; the rest is the task's affair."""
        ...

    def write(self, store: Any) -> None:
        """Write tables and facts into the store that `open_store` returned."""
        ...


@dataclass(frozen=True)
class OwnSource:
    """A source that stands in the file of its task; `files(settings)` are those that it reads, which are hashed."""

    Settings: type[BaseModel]
    files: Callable[[Any], Sequence[Path]] | None = None


@dataclass(frozen=True)
class OwnFamily:
    """A model family that stands in the file of its task.

    `pretrained(settings)` returns weights that it comes with (base: {pretrained: true}), which the task must have too;
    `export(settings, model, folder)` writes a model in the form in which it was given.
    """

    Settings: type[BaseModel]
    pretrained: Callable[[Any], Mapping[str, Any]] | None = None
    export: Callable[[Any, nn.Module, Path], None] | None = None


def own(what: str, name: str, known: Mapping[str, Part]) -> Part:
    """Return the part of a task that a config names. Raises InputError, with the nearest name, where there is none.

    >>> own("source", "wine", {"wine": 1})
    1
    """
    if name not in known:
        raise InputError(f"unknown {what} {name!r}{nearest(name, known)}; this task has {', '.join(known)}")
    return known[name]


def _no_files(model: ModelConfig) -> Mapping[str, Path]:
    return {}


@dataclass(frozen=True)
class Preparing:
    """The contents of a task's file.

    `load_data(data, model)` loads the rows and draws their split; `make_task(data, model, compute, tables, facts)`
    returns the task of tables in memory or of a store, whose facts are given: what `negmerge.tasks.task` asks for.
    `source_file(name)` and `family_of(name)` return what a config's `source` and `family` name, each with `Settings`
    (pydantic, unknown keys are errors), as `OwnSource` and `OwnFamily` say; they raise InputError for unknown names.

    `open_store(folder)` returns the store of a run, for tensors unless given; `check_training(augment, where)` raises
    InputError for an augmentation that the task does not know, which is every one unless given; `model_files(model)`
    the files that the model is read from, by the names that a record shows: they are hashed when a run begins. `GONE`
    is the score of forget rows, in percent, at and below which nothing is left to forget: 0 of accuracies.
    `LABELLED` says whether groups are classes, which a model tells apart: then rows of others are of another kind.
    """

    SUMMARY: str
    load_data: Callable[[DataConfig, ModelConfig], Loaded]
    make_task: Callable[[DataConfig, ModelConfig, Compute, Any, Mapping[str, Any]], Task]
    source_file: Callable[[str], Any]
    family_of: Callable[[str], Any]
    open_store: Callable[[Path], Store] = TensorStore
    check_training: Callable[[str, str], None] = refuse_augmentation
    model_files: Callable[[ModelConfig], Mapping[str, Path]] = _no_files
    GONE: float = 0.0
    LABELLED: bool = True
