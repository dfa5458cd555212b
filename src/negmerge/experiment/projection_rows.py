"""Rows that a projection is to protect, listed in a file: read before anything is trained, and none of the request."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.experiment.config import RunConfig
from negmerge.experiment.projection_config import ProjectionConfig
from negmerge.requests.rules import check_numbers, checked_rows, values_in
from negmerge.requests.splits import Split
from negmerge.tasks.task import Task

KEY = "projection.rows"


def check_files(config: RunConfig) -> None:
    """Raise InputError where a file of rows that a config names is not there, or no list of row numbers."""
    for file in _files(config):
        _values(file)


def check_listed(config: RunConfig, task: Task, split: Split, parts: Mapping[str, Tensor]) -> None:
    """Raise InputError where such a file has rows of the request, or rows that the train table lacks."""
    for file in _files(config):
        listed_rows(file, task, split, parts)


def listed_rows(file: Path, task: Task, split: Split, parts: Mapping[str, Tensor]) -> Tensor:
    """Return the rows that a file lists, sorted.

    Raises InputError for a file that is none, rows beyond the train table, duplicates, rows that are to be forgotten,
    and rows of a class or source that is to be forgotten as a whole.
    """
    where = f"{KEY}: {file}"
    rows = checked_rows(_values(file), _table(task, parts), where, forms="")
    asked = int(torch.isin(rows, parts["forget"]).sum())
    if asked:
        raise InputError(f"{where} holds {asked} rows that are to be forgotten; leave them out")
    alike = int(_alike(rows, task, split, parts).sum())
    if alike:
        what = "a class" if split.kind == "class" else "a source"
        raise InputError(f"{where} holds {alike} rows of {what} that is to be forgotten as a whole; leave them out")
    return rows


def _files(config: RunConfig) -> list[Path]:
    """Return the files that a config and its methods name, each once."""
    found = [config.projection, *(method.projection for method in config.methods)]
    rows = [one.rows for one in found if isinstance(one, ProjectionConfig)]
    return list(dict.fromkeys(one for one in rows if isinstance(one, Path)))


def _values(file: Path) -> Any:
    where = f"{KEY}: {file}"
    if not file.exists():
        raise InputError(f"{where} is not there; give retain, validation, or a file of row numbers of the train table")
    values = values_in(file, where)
    check_numbers(values, where)
    return values


def _alike(rows: Tensor, task: Task, split: Split, parts: Mapping[str, Tensor]) -> Tensor:
    """Return which rows are of what is forgotten as a whole: held out of it, or elsewhere in the table."""
    found = torch.isin(rows, parts["validation_forget"])
    if split.kind == "class":
        groups = task.rows().group_of
        found |= torch.isin(groups[rows], groups[parts["forget"]].unique())
    return found


def _table(task: Task, parts: Mapping[str, Tensor]) -> int:
    """The number of rows of the train table: test rows stand behind it."""
    tests = [int(rows.min()) for name, rows in parts.items() if name.startswith("test") and len(rows)]
    return min(tests, default=len(task.rows()))
