"""Files of questions with answers, or of texts: JSON (a list, or an object a line), CSV, parquet."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field

from negmerge.errors import InputError
from negmerge.requests.naming import listed_rows
from negmerge.tasks.causal_lm.questions import QuestionSet, QuestionSource, question_source
from negmerge.tasks.causal_lm.requested import contradictions, keys, read_files, read_requested, without
from negmerge.tasks.causal_lm.tables import QuestionSettings, sampled
from negmerge.tasks.text_classification.tables import REQUESTED

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
    requested: Path | None = Field(
        None, description="rows to forget, put first: a file of rows, or a .txt list of ids of rows in path"
    )
    leave_out: list[Path] = Field(
        default_factory=list,
        description="files of rows that are left out of path, or the split.json of runs that forgot them",
    )


def load(settings: Settings) -> QuestionSource:
    """Return the tables in the files.

    Rows that are `requested` stand in the train table, before all others, with the column `requested`; what else is
    equal to one of them, or to a row that is left out, is dropped; white space around texts does not count, and of
    equal rows that are requested the first stands for all. Raises InputError for what is not there, for columns that
    are missing or cannot be told, and for a row without prompt or answer.
    """
    train_files, test_files = _parts(settings)
    read = read_files(train_files, settings.columns)
    rows, where, lacking = read.rows, read.where, [read.groupless]
    asked = None
    if settings.requested is not None:
        requested = read_requested(settings.requested, settings.columns, read)
        asked = requested.rows
        lacking.append(requested.groupless)
    gone = set() if asked is None else keys(asked)
    notes, earlier = [], set()
    for path in settings.leave_out:
        listed = listed_rows(path)
        if listed is None:
            gone |= keys(read_files([path], settings.columns).rows)
        else:
            own = {row.get("hash") for row in listed}
            if len(without(rows, (), own)) == len(rows):
                notes.append(f"none of the {len(own)} rows that {path} lists stands in {where}: nothing is left out")
            earlier |= own
    rows = without(rows, gone, earlier)
    if not len(rows):
        raise InputError(f"{where}: all of its rows are to be forgotten or left out; give others that are kept")
    notes += [] if asked is None else contradictions(asked, rows, where)
    if test_files:
        tested = read_files(test_files, _without_id(settings.columns))
        test, lacking = without(tested.rows, gone, earlier), [*lacking, tested.groupless]
        train = rows if asked is None else _marked(asked, rows)
    else:
        cut = max(1, round(settings.test_fraction * len(rows)))
        if len(rows) <= cut:
            raise InputError(f"{where} has {len(rows)} rows, too few to take a test part from; give test: FILE")
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(settings.seed))
        rest, test = (rows.take(part.sort().values) for part in (order[cut:], order[:cut]))
        train = rest if asked is None else _marked(asked, rest)
    lacking = list(dict.fromkeys(filter(None, lacking)))
    found = question_source(
        sampled(train, settings.most), test, notes=[*lacking, *notes], groupless=next(iter(lacking), "")
    )
    return replace(found, drawn=not test_files)


def files(settings: Settings) -> list[Path]:
    """Return the files that `load` reads, in a fixed order."""
    train, test = _parts(settings)
    return [*([settings.requested] if settings.requested else []), *train, *test, *settings.leave_out]


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


def _without_id(columns: Mapping[str, str]) -> dict[str, str]:
    return {role: name for role, name in columns.items() if role != "id"}


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
