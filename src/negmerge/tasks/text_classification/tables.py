"""Tables with a column of texts and one of labels, whatever format they were read from."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from negmerge.errors import InputError, nearest, shortened
from negmerge.requests.naming import listed_rows, rows_named
from negmerge.tasks.image_classification.folders import is_hidden
from negmerge.tasks.text_classification.texts import TextSet, TextSource, text_hash

Key = tuple[str, str]  # the hash of a text, and its label
Table = Mapping[str, Sequence[Any]]  # the values of each column
NAMES = {  # what the columns are mostly called, the likeliest first
    "text": ("text", "sentence", "content", "review", "comment", "message", "document", "question", "title"),
    "label": ("label", "labels", "class", "category", "target", "sentiment", "topic"),
}
PRESENT = ("train", "test")
DISTINCT = "distinct_first"  # the setting of a source: so many rows are to be forgotten, and come first
REQUESTED = "requested"  # the column that is true of the rows in `distinct_first`
ID = "id"  # the column of the rows' own names, where there is one and no name stands twice


class TextSettings(BaseModel):
    """Settings of all sources of texts."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, str] = Field(
        default_factory=dict, description="text: NAME, label: NAME, id: NAME; found by their names unless given"
    )
    most: int | None = Field(
        None, ge=1, description="a seeded sample of so many rows of the train table; all unless set"
    )


class FileSettings(TextSettings):
    """Settings of sources that are files."""

    path: Path | list[Path] = Field(
        description="a file, several that are read one after the other, or a folder with train* and test*"
    )
    test: Path | None = Field(None, description="the file of the test table, where path is no folder")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for test, where there is no file")
    seed: int = Field(0, ge=0, description="of that share")
    distinct_first: int = Field(0, ge=0, description="rows that are to be forgotten: see negmerge unlearn")
    train_first: int = Field(0, ge=0, description="no test row is drawn from the first so many rows, nor from those")
    train_ids: Path | None = Field(None, description="a list of ids, one a line, of which no test row is drawn")
    leave_out: list[Path] = Field(
        default_factory=list, description="files of rows, or the split.json of earlier runs, that are no train rows"
    )


def load_files(settings: FileSettings, read: Callable[[Path], Table], endings: Sequence[str]) -> TextSource:
    """Return the tables in files of one format.

    Raises InputError for what is not there, for columns that are missing or cannot be told apart, for a row without
    text or label, and for a label that only the test table has.
    """
    train_files, test_files = _files(settings, endings)
    notes = _passed_over(settings, [*train_files, *test_files])
    train = _read_all(train_files, read, endings)
    where = str(train_files[0]) if len(train_files) == 1 else f"{train_files[0]} …"
    names = find_columns(train, settings.columns, where)
    if settings.columns.get(ID, ID) != ID:
        train = {**train, ID: train[settings.columns[ID]]}
    first = settings.distinct_first
    gone = {key for path in settings.leave_out for key in keys_in(path, names)}
    known = {label for _, label in gone}
    pairs = list(zip(*(train[name] for name in names), strict=True))
    gone_or_first = gone | set(map(_key, pairs[:first]))
    kept = [i for i, pair in enumerate(pairs) if i < first or not gone_or_first or _key(pair) not in gone_or_first]
    train = {name: [values[i] for i in kept] for name, values in train.items()}
    if first:
        train = {**train, REQUESTED: [row < first for row in range(len(kept))]}
    if test_files:
        tests = _read_all(test_files, read, endings)
        return replace(to_source(train, tests, names, settings.most, where, known), notes=notes)
    first = max(first, settings.train_first)
    whole = to_source(train, train, names, None, where, known).train
    stay = torch.tensor(rows_named(settings.train_ids, whole.ids) if settings.train_ids else (), dtype=torch.int64)
    order = first + torch.randperm(len(kept) - first, generator=torch.Generator().manual_seed(settings.seed))
    order = order[~torch.isin(order, stay)]
    cut = max(1, round(settings.test_fraction * len(order)))
    if len(order) <= cut:
        raise InputError(f"{where} has {len(order)} rows, too few to take a test part from; give test: FILE")
    rows = torch.cat([torch.arange(first), stay[stay >= first], order[cut:]]).sort().values
    return TextSource(whole.take(_sample(rows, settings.most)), whole.take(order[:cut].sort().values), notes)


def files_of(settings: FileSettings, endings: Sequence[str]) -> list[Path]:
    """Return the files that `load_files` reads, in a fixed order."""
    train, test = _files(settings, endings)
    return [*train, *test, *filter(None, [settings.train_ids]), *settings.leave_out]


def read_table(path: Path) -> Table:
    """Return the columns of a file of any of the formats, told by its ending. Raises InputError for another ending."""
    return _reader(path)(path)


def keys_in(path: Path, names: tuple[str, str]) -> list[Key]:
    """Return what tells each row of a file from others, by the names of its columns of texts and labels.

    The file may be the `split.json` of a run: its rows are those that the run forgot.
    """
    listed = listed_rows(path)
    if listed is not None:
        return [(str(row.get("hash")), str(row.get("group"))) for row in listed]
    table = read_table(path)
    lost = next((name for name in names if name not in table), None)
    if lost is not None:
        raise InputError(f"{path} has no column {lost!r}{nearest(lost, table)}; there are {shortened([*table])}")
    return list(map(_key, zip(*(table[name] for name in names), strict=True)))


def source_of(path: Path) -> str:
    """Return the name of the source that reads a file with its ending. Raises InputError where there is none."""
    from negmerge import registry

    for name in registry.names("text-sources"):
        if path.suffix.lower() in getattr(registry.load("text-sources", name), "ENDINGS", ()):
            return name
    raise InputError(f"{path} is no table that is read here; give .csv, .tsv, .json, .jsonl or .parquet")


def to_source(
    train: Table, test: Table, names: tuple[str, str], most: int | None, where: str, known: Iterable[str] = ()
) -> TextSource:
    """Return two tables as a source; the classes are those of the train table, in order (numbers by their value).

    `known` are classes whose rows may all be left out, and that count nevertheless.
    """
    text, label = names
    for part, table in zip(PRESENT, (train, test), strict=True):
        lacking = [name for name in names if name not in table]
        if lacking:
            raise InputError(f"{where}: the {part} table has no column {lacking[0]!r}; it has {shortened([*table])}")
    labels = [label_text(value, f"{where}: row {row}") for row, value in enumerate(train[label])]
    classes = tuple(sorted({*labels, *known}, key=_by_value))
    if len(classes) < 2:
        raise InputError(f"{where}: column {label!r} has {len(classes)} label(s); two at least can be told apart")
    whole = _text_set(train, text, labels, classes, f"{where} (train)")
    tests = [label_text(value, f"{where} (test): row {row}") for row, value in enumerate(test[label])]
    return TextSource(
        whole.take(_sample(torch.arange(len(whole)), most)), _text_set(test, text, tests, classes, f"{where} (test)")
    )


def find_columns(table: Table, chosen: Mapping[str, str], where: str) -> tuple[str, str]:
    """Return the names of the columns of texts and of labels: those chosen, else the only ones with a usual name.

    Where no column of texts has a usual name, the only other column of texts is taken. Raises InputError where a column
    is missing or cannot be told.
    """
    unknown = [key for key in chosen if key not in (*NAMES, ID)]
    if unknown:
        raise InputError(f"columns: {unknown[0]!r} is not one of text, label and id")
    if chosen.get(ID, ID) not in table and ID in chosen:
        lost = chosen[ID]
        raise InputError(f"{where} has no column {lost!r}{nearest(lost, table)}; there are {shortened([*table])}")
    found: dict[str, str] = {}
    for role in ("label", "text"):
        name = chosen.get(role) or next((name for name in NAMES[role] if name in table), None)
        if name is None:
            others = [key for key in table if key != found.get("label") and _is_text(table[key])]
            name = others[0] if role == "text" and len(others) == 1 else None
        if name is None:
            raise InputError(
                f"{where}: which column holds the {role}? write columns: {{{role}: NAME}}; "
                f"there are {shortened([*table])}"
            )
        if name not in table:
            raise InputError(f"{where} has no column {name!r}{nearest(name, table)}; there are {shortened([*table])}")
        found[role] = name
    return found["text"], found["label"]


def label_text(value: Any, where: str) -> str:
    """Return a label as the exact text that names its class: of a number its digits, of a truth value true or false.

    >>> label_text("001", ""), label_text(3, ""), label_text(True, "")
    ('001', '3', 'true')
    """
    if isinstance(value, list | tuple | dict):
        raise InputError(f"{where} has several labels ({value!r}); multi-label data is not supported, only one a row")
    if value is None or value == "":
        raise InputError(f"{where} has no label; leave such rows out")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not value.is_integer():
        raise InputError(f"{where} has the label {value!r}, a number for a regression; only classes are supported")
    return str(int(value)) if isinstance(value, float) else str(value)


def _text_set(table: Table, column: str, labels: list[str], classes: tuple[str, ...], where: str) -> TextSet:
    texts = table[column]
    index = {name: number for number, name in enumerate(classes)}
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if not isinstance(text, str):
            raise InputError(f"{where}: row {row} has no text ({text!r}); leave such rows out")
        if label not in index:
            raise InputError(f"{where}: row {row} has the label {label!r}, which the train table does not have")
    numbers = torch.tensor([index[label] for label in labels], dtype=torch.int64)
    ids = tuple(str(value) for value in table.get(ID, ()))
    further = {name: list(values) for name, values in table.items() if name != column and _is_plain(values)}
    return TextSet(tuple(texts), numbers, classes, ids if len(set(ids)) == len(ids) else (), further)


def _read_all(files: Sequence[Path], read: Callable[[Path], Table], endings: Sequence[str]) -> Table:
    """Return the columns that all files have, their rows one behind the other; other formats by their endings."""
    tables = [(read if file.suffix.lower() in endings else _reader(file, read))(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        if not table or not len(next(iter(table.values()))):
            raise InputError(f"{file} has no rows; check the path")
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    if not shared:
        raise InputError(f"{files[0]} and {files[-1]} have no column in common; give both the same names")
    return {name: [value for table in tables for value in table[name]] for name in shared}


def _reader(path: Path, otherwise: Callable[[Path], Table] | None = None) -> Callable[[Path], Table]:
    from negmerge import registry

    try:
        reader: Callable[[Path], Table] = registry.load("text-sources", source_of(path)).read
    except InputError:
        if otherwise is None:
            raise
        return otherwise
    return reader


def _key(pair: Any) -> Key:
    text, label = pair
    return text_hash(str(text)), label_text(label, "a row")


def _files(settings: FileSettings, endings: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """Return the files of the train and of the test table; of the second none where it is a share of the first."""
    given = settings.path if isinstance(settings.path, list) else [settings.path]
    missing = [path for path in (*given, *filter(None, [settings.test])) if not path.exists()]
    if not given or missing:
        raise InputError(f"{missing[0] if missing else 'data.path'}: no such file or folder; give data.path")
    if len(given) > 1 or not given[0].is_dir():
        return given, [settings.test] if settings.test else []
    parts = [
        [file for file in _in_folder(given[0]) if file.name.lower().startswith(part) and file.suffix.lower() in endings]
        for part in PRESENT
    ]
    if not parts[0]:
        there = shortened([file.name for file in _in_folder(given[0])], 5) or "nothing"
        raise InputError(f"{given[0]} holds no train*{endings[0]} (but {there}); give the file itself as data.path")
    return parts[0], [settings.test] if settings.test else parts[1]


def _in_folder(folder: Path) -> list[Path]:
    """Return the files that lie in a folder itself, hidden ones aside, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name))


def _passed_over(settings: FileSettings, taken: Sequence[Path]) -> tuple[str, ...]:
    """Return which files of the folder are not read, in a line; none where the path names files."""
    if isinstance(settings.path, list) or not settings.path.is_dir():
        return ()
    others = [path.name for path in _in_folder(settings.path) if path not in taken]
    return (f"{settings.path}: {len(others):,} files are not read: {shortened(others, 5)}",) if others else ()


def _sample(rows: torch.Tensor, most: int | None) -> torch.Tensor:
    if most is None or most >= len(rows):
        return rows
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:most].sort().values]


def _is_text(values: Sequence[Any]) -> bool:
    return len(values) > 0 and all(isinstance(value, str) for value in values)


def _is_plain(values: Sequence[Any]) -> bool:
    return all(value is None or isinstance(value, str | int | float | bool) for value in values)


def _by_value(name: str) -> tuple[bool, int, str]:
    whole = name.isdecimal()
    return not whole, int(name) if whole else 0, name
