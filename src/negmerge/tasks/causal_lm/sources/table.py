"""Files of questions with answers, or of texts: JSON (a list, or an object a line), CSV, parquet."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field

from negmerge.errors import InputError
from negmerge.requests.naming import listed_rows
from negmerge.tasks.causal_lm.questions import QuestionSet, QuestionSource, question_source
from negmerge.tasks.causal_lm.tables import QuestionSettings, Table, find_columns, sampled, to_questions
from negmerge.tasks.text_classification.tables import REQUESTED, read_table

SUMMARY = "files of questions with answers, or of texts: .json, .jsonl, .csv or .parquet (also by these names)"
PARTS = ("train", "test")


class Settings(QuestionSettings):
    """Where the files are, and which columns hold what."""

    path: Path | list[Path] = Field(
        description="a file, several that are read one after the other, or a folder with train* and test*"
    )
    test: Path | None = Field(None, description="the file of the test table, where path is no folder")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share of the rows for test, where there is no file")
    seed: int = Field(0, ge=0, description="of that share")
    requested: Path | None = Field(None, description="a file of rows to forget, put first: see negmerge unlearn")
    leave_out: list[Path] = Field(
        default_factory=list,
        description="files of rows that are left out of path, or the split.json of runs that forgot them",
    )


def load(settings: Settings) -> QuestionSource:
    """Return the tables in the files.

    Rows that are `requested` stand in the train table, before all others, with the column `requested`; what else is
    equal to one of them, or to a row that is left out, is dropped. Raises InputError for what is not there, for
    columns that are missing or cannot be told, and for a row without prompt or answer.
    """
    train_files, test_files = _parts(settings)
    rows, where = _read(train_files, settings.columns)
    asked = None
    if settings.requested is not None:
        asked, _ = _read([settings.requested], settings.columns)
        _check_likeness(asked, rows, settings.requested, where)
    gone = set() if asked is None else _hashes(asked)
    for path in settings.leave_out:
        listed = listed_rows(path)
        found = _hashes(_read([path], settings.columns)[0]) if listed is None else {row.get("hash") for row in listed}
        gone |= found
    rows = _without(rows, gone)
    if test_files:
        test, _ = _read(test_files, settings.columns)
        train = rows if asked is None else _marked(asked, rows)
        return question_source(sampled(train, settings.most), _without(test, gone))
    cut = max(1, round(settings.test_fraction * len(rows)))
    if len(rows) <= cut:
        raise InputError(f"{where} has {len(rows)} rows, too few to take a test part from; give test: FILE")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(settings.seed))
    rest, test = (rows.take(part.sort().values) for part in (order[cut:], order[:cut]))
    return question_source(sampled(rest if asked is None else _marked(asked, rest), settings.most), test)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads, in a fixed order."""
    train, test = _parts(settings)
    return [*([settings.requested] if settings.requested else []), *train, *test, *settings.leave_out]


def _check_likeness(asked: QuestionSet, rows: QuestionSet, requested: Path, where: str) -> None:
    if (asked.prompts[0] is None) != (rows.prompts[0] is None):
        kinds = ("texts", "questions") if asked.prompts[0] is None else ("questions", "texts")
        raise InputError(f"{requested} holds {kinds[0]} and {where} {kinds[1]}; give both in the same form")


def _both(asked: QuestionSet, rows: QuestionSet) -> QuestionSet:
    groups = (*asked.classes, *(name for name in rows.classes if name not in asked.classes))
    both = asked.followed_by(rows, groups, torch.tensor([groups.index(name) for name in rows.classes]))
    shared = [name for name in asked.columns if name in rows.columns]
    return replace(both, columns={name: [*asked.columns[name], *rows.columns[name]] for name in shared})


def _marked(asked: QuestionSet, rows: QuestionSet) -> QuestionSet:
    """Return the requested rows with the others behind them, and a column that says which is which."""
    both = _both(asked, rows)
    flags = [row < len(asked) for row in range(len(both))]
    return replace(both, columns={**both.columns, REQUESTED: flags})


def _hashes(rows: QuestionSet) -> set[str | None]:
    return {rows.row_hash(row) for row in range(len(rows))}


def _without(rows: QuestionSet, gone: set[str | None]) -> QuestionSet:
    """Return the rows whose hash, of prompt and answer, is none of these."""
    kept = [row for row in range(len(rows)) if rows.row_hash(row) not in gone]
    return rows if len(kept) == len(rows) else rows.take(torch.tensor(kept, dtype=torch.int64))


def _read(paths: Sequence[Path], columns: Mapping[str, str]) -> tuple[QuestionSet, str]:
    """Return the rows of files, one behind the other, and what to call them in an error."""
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} …"
    table = _together(paths)
    return to_questions(table, find_columns(table, columns, where), where), where


def _parts(settings: Settings) -> tuple[list[Path], list[Path]]:
    given = settings.path if isinstance(settings.path, list) else [settings.path]
    missing = [path for path in (*given, *filter(None, [settings.test])) if not path.exists()]
    if not given or missing:
        raise InputError(f"{missing[0] if missing else 'data.path'}: no such file or folder; give data.path")
    own = [] if settings.test is None else [settings.test]
    if len(given) > 1 or not given[0].is_dir():
        return given, own
    train, test = (sorted(path for path in given[0].glob(f"{part}*") if path.is_file()) for part in PARTS)
    if not train:
        raise InputError(f"{given[0]} holds no train* file; give the file itself as data.path")
    return train, own or test


def _together(paths: Sequence[Path]) -> Table:
    """Return the columns that all files have, their rows one behind the other."""
    tables = [read_table(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not table or not len(next(iter(table.values()))):
            raise InputError(f"{path} has no rows; check the path")
    shared = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: [value for table in tables for value in table[name]] for name in shared}
