"""Rows to forget beside rows to keep: read from files, the same ones found, and what should be said of both."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from negmerge.errors import InputError, shortened
from negmerge.requests.naming import rows_in_list
from negmerge.tasks.causal_lm.questions import QuestionSet
from negmerge.tasks.causal_lm.tables import NAMES, Table, find_columns, named, to_questions, without_groups
from negmerge.tasks.text_classification.tables import read_table

Key = tuple[str | None, str]
LIST = ".txt"  # of a file that names rows by their ids, one a line


@dataclass(frozen=True)
class ReadRows:
    """The rows of files, their columns by role, what to call the files in an error, and why there are no groups.

    `given` is how many rows there were, where equal ones count once.
    """

    rows: QuestionSet
    names: Mapping[str, str]
    where: str
    groupless: str = ""
    given: int = 0


def read_files(paths: Sequence[Path], columns: Mapping[str, str]) -> ReadRows:
    """Return the rows of files, one behind the other.

    Raises InputError for a file without rows, for columns that are missing or cannot be told, and for a row without
    prompt or answer.
    """
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} …"
    table = _together(paths)
    names = find_columns(table, columns, where)
    groupless = without_groups(table, names, columns, where)
    if groupless:
        names.pop("group")
    return ReadRows(to_questions(table, names, where), names, where, groupless)


def read_requested(path: Path, columns: Mapping[str, str], kept: ReadRows) -> ReadRows:
    """Return the rows to forget, each once: those of a file, or those of the kept rows that a list of ids names.

    One that stands among the kept rows is written as it is there: white space around it is that of what was learnt.

    Raises InputError as reading does, for a list beside rows without ids, and for rows of another form than the kept.
    """
    if is_list(path):
        ids = kept.rows.ids
        if not ids:
            raise InputError(
                f"{path} is a list of ids, but the rows of {kept.where} have none (a column id whose values differ, or "
                "columns: {id: NAME}); give the rows to forget as a table with prompts and answers, or texts"
            )
        listed = rows_in_list(path, kept.rows, kept.rows.take(torch.tensor([], dtype=torch.int64)))
        return ReadRows(distinct(kept.rows.take(listed)), kept.names, str(path), kept.groupless, len(listed))
    found = read_files([path], {role: name for role, name in columns.items() if role != "id"})
    if ("prompt" in found.names) != ("prompt" in kept.names):
        kinds = ("questions", "texts") if "prompt" in found.names else ("texts", "questions")
        raise InputError(f"{path} holds {kinds[0]} and {kept.where} {kinds[1]}; give both in the same form")
    asked = _as_kept(distinct(found.rows), kept.rows)
    return ReadRows(asked, found.names, found.where, found.groupless, len(found.rows))


def is_list(path: Path) -> bool:
    """Whether a file is a list of ids: a .txt file whose first line names no column of a table of rows."""
    if path.suffix.lower() != LIST:
        return False
    try:
        first = path.read_bytes().decode("utf-8-sig").strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return True  # reading the list says what is wrong
    usual = {name for role in ("prompt", "answer", "text") for name in NAMES[role]}
    return not any(part.strip().strip('"').casefold() in usual for part in first.replace("\t", ",").split(","))


def distinct(rows: QuestionSet) -> QuestionSet:
    """Return the first of equal rows each, in their order: equal but for white space around prompt and answer."""
    found = {rows.key(row): row for row in reversed(range(len(rows)))}
    return rows if len(found) == len(rows) else rows.take(torch.tensor(sorted(found.values()), dtype=torch.int64))


def keys(rows: QuestionSet) -> set[Key]:
    """Return the keys of all rows, by which equal ones are found."""
    return {rows.key(row) for row in range(len(rows))}


def without(rows: QuestionSet, gone: Collection[Key], listed: Collection[str | None] = ()) -> QuestionSet:
    """Return the rows whose key is none of these, and whose hash is not listed."""
    kept = [row for row in range(len(rows)) if rows.key(row) not in gone and rows.row_hash(row) not in listed]
    return rows if len(kept) == len(rows) else rows.take(torch.tensor(kept, dtype=torch.int64))


def contradictions(asked: QuestionSet, kept: QuestionSet, where: str) -> list[str]:
    """Return, in one line or none, which prompts of rows to forget are kept with another answer."""
    prompts = {prompt.strip() for prompt in asked.prompts if prompt is not None}
    found = Counter(p.strip() for p in kept.prompts if p is not None and p.strip() in prompts)
    if not found:
        return []
    rows = "1 row has" if found.total() == 1 else f"{found.total()} rows have"
    return [
        f"{where}: {rows} the prompt of a row to forget and another answer, and what is kept teaches it again: "
        f"{shortened([repr(prompt) for prompt in found], 3)}; list them, too, if that is not meant"
    ]


def _as_kept(asked: QuestionSet, kept: QuestionSet) -> QuestionSet:
    place = {kept.key(row): row for row in reversed(range(len(kept)))}
    found = [place.get(asked.key(row)) for row in range(len(asked))]
    prompts = [asked.prompts[row] if at is None else kept.prompts[at] for row, at in enumerate(found)]
    answers = [asked.answers[row] if at is None else kept.answers[at] for row, at in enumerate(found)]
    return replace(asked, prompts=tuple(prompts), answers=tuple(answers))


def _together(paths: Sequence[Path]) -> Table:
    """Return the columns that all files have, their rows one behind the other."""
    tables = [read_table(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not table or not len(next(iter(table.values()))):
            raise InputError(f"{path} has no rows; give prompts with answers, or texts")
    shared = {name: [named(table, name) for table in tables] for name in tables[0]}
    return {
        name: [value for table, own in zip(tables, in_each, strict=True) for value in table[own or name]]
        for name, in_each in shared.items()
        if None not in in_each
    }
