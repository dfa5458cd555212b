"""From the data part of a config to rows with their split, whatever they are rows of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from negmerge.errors import InputError
from negmerge.plug_in import file_of
from negmerge.requests.rows import Joined
from negmerge.requests.split_files import fingerprint
from negmerge.requests.splits import Split, draw_split, split_from_file
from negmerge.tasks.rows.row_set import Pair, RowSource, join_sources
from negmerge.tasks.rows.store import BothTables, Kind, TableStore
from negmerge.tasks.settings import DataConfig, ModelConfig

Content = TypeVar("Content", bound="Tables")


@dataclass(frozen=True)
class SourceFile(Generic[Pair]):
    """The contents of a source's file: `load(settings)` returns the train and the test table.

    `Settings` is pydantic, unknown keys are errors. `files(settings)` lists what is read of the disk, in a fixed
    order, which is hashed: without it, everything that a path among the settings leads to.
    """

    SUMMARY: str
    Settings: Any
    load: Callable[[Any], Pair]
    files: Callable[[Any], Sequence[Path]] | None = field(default=None, kw_only=True)


def load_rows(file: SourceFile[Pair], settings: Mapping[str, Any]) -> Pair:
    """Return the tables of a source with the settings that a config gives."""
    return file.load(file.Settings(**settings))


@dataclass(frozen=True)
class Joining(Generic[Pair]):
    """The rows of a config: its source, that of the forget set behind where it is another one, and their split.

    `class_counts` are the classes that each source brought.
    """

    source: Pair
    split: Split
    class_counts: tuple[int, ...]


def join_and_split(
    data: DataConfig,
    load: Callable[[str, Mapping[str, Any]], Pair],
    outputs: Callable[[Sequence[str]], tuple[str, ...]] | None,
) -> Joining[Pair]:
    """Load the sources of a config by `load(name, settings)`, join them, and draw the split or read it.

    `outputs(classes)` names the outputs of a model for these classes, as which they are counted; where it is None,
    each source keeps classes of its own. Raises InputError as loading, joining and drawing do.
    """
    source, other = load(data.source, data.source_settings), None
    counts = [len(source.train.classes)]
    if data.forget is not None and data.forget.source is not None:
        second = load(data.forget.source, data.forget.source_settings)
        counts.append(len(second.train.classes))
        other = join_sources(source, second, unite=outputs is not None)
        source = other.source
    if outputs is not None:
        source = source.counted_as(outputs(source.train.classes))
    return Joining(source, split_rows(data, source, other), tuple(counts))


class Tables(Protocol):
    """The train and the test table, as a split is drawn of them."""

    @property
    def train(self) -> Any:
        """The rows to train on."""
        ...

    @property
    def test(self) -> Any:
        """The rows that no model of the run has seen."""
        ...


def split_rows(data: DataConfig, source: Tables, other: Joined | None = None) -> Split:
    """Return the split that a config asks for: of its file, or drawn by its rules. Raises InputError as both do."""
    if data.split is not None:
        return split_from_file(data.split, source.train, source.test)
    assert data.forget is not None
    return draw_split(
        source.train,
        source.test,
        forget=data.forget,
        retain=data.retain,
        validation=data.validation,
        train_rows=data.train_rows,
        seed=data.seed,
        other=other,
    )


def facts_of(source: RowSource[Any], size: int) -> dict[str, Any]:
    """Return what every store keeps of a source whose content is so many bytes, as plain JSON values."""
    names, hash = list(source.train.classes), fingerprint(source.train, source.test)
    drawn = {"drawn": True} if source.drawn else {}
    return {"classes": names, "fingerprint": hash, "bytes": size, "notes": list(source.notes), **drawn}


@dataclass(frozen=True)
class LoadedRows(Generic[Content, Kind]):
    """The source of a run as requests see it, its split, and the tables as the task takes them, in memory."""

    source: Content
    split: Split
    tables: BothTables[Kind]
    class_counts: tuple[int, ...] = ()

    @property
    def described(self) -> Mapping[str, Any]:
        """The facts of the tables, as plain JSON values."""
        return self.tables.facts

    def write(self, store: TableStore[Kind]) -> None:
        """Write the tables and their facts into a store, once and for all processes."""
        store.write(self.tables)


def refuse_augmentation(augment: str, where: str) -> None:
    """Raise InputError, naming the place in a config, for an augmentation: only images have some."""
    if augment != "none":
        raise InputError(f"{where}: augment: {augment} is for images; leave it out")


def family_files(model: ModelConfig, family: Any) -> Mapping[str, Path]:
    """Return the files that a family is read from, its own too, by the names that a record shows."""
    own = file_of(model.family)
    files = dict(family.model_files(family.Settings(**model.settings)))
    return files if own is None else {model.family: own, **files}
