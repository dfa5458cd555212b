"""Rows as people name them: by the path of a file or an id, a line each, or by what stands in a column."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError, listing, nearest, shortened
from negmerge.requests.rows import Rows, columns_of, ids_of

SPLIT_FILE = "split.json"  # of a run
AMBIGUOUS = "{line}: names several rows ({names}); write more of the path"


def rows_in_list(path: Path, train: Rows, test: Rows) -> Tensor:
    """Return the rows that a list of paths or ids names, int64, sorted; a row that is named twice is one row.

    A line is an id as `negmerge rows` shows it, or a path that ends like one id, or that one id ends like: of
    `train/cat/7.png` both `cat/7.png` and `/data/photos/train/cat/7.png`. Empty lines are passed over.

    Raises InputError for a file that is no text or is empty, and, in one list, for all lines that name no row, several
    rows, or a row of the test table, which no model was trained on.
    """
    lines = _lines(path)
    index = _Index(ids_of(train))
    found, wrong = set(), []
    for line in lines:
        rows = index.find(line)
        if len(rows) == 1:
            found.add(rows[0])
        elif rows:
            wrong.append(AMBIGUOUS.format(line=line, names=shortened([index.ids[row] for row in rows], 3)))
        else:
            wrong.append(line)
    if wrong:
        raise InputError(_unfound(path, lines, wrong, train, test))
    return torch.tensor(sorted(found), dtype=torch.int64)


def rows_where(conditions: Mapping[str, Sequence[Any]], train: Rows) -> Tensor:
    """Return the rows that have, in every column named, one of the values given, int64, sorted.

    A column of numbers is compared by value, a column of booleans by truth value, any other by its exact text.
    Raises InputError for a column that is not there, a value that no row has, and where nothing is left.
    """
    columns = columns_of(train)
    chosen = torch.ones(len(train), dtype=torch.bool)
    for name, wanted in conditions.items():
        if name not in columns:
            known = f"there are {shortened(sorted(columns))}" if columns else "this source has none"
            raise InputError(f"where: no column {name!r}{nearest(name, columns)}; {known}")
        chosen &= _matches(name, list(columns[name]), wanted)
    if not chosen.any():
        raise InputError(f"where: no row has all of {', '.join(conditions)} as asked for; `negmerge rows` shows rows")
    return chosen.nonzero()[:, 0]


def rows_named(path: Path, ids: Sequence[str]) -> list[int]:
    """Return the rows, of a table with these ids, that a list names, sorted; lines that name none are passed over.

    The list may be the `split.json` of a run: it names what that run forgot, each row by its whole id.
    """
    listed = listed_rows(path)
    if listed is not None:
        gone = {row.get("id") for row in listed}
        return [row for row, name in enumerate(ids) if name in gone]
    index = _Index(ids)
    return sorted({row for line in _lines(path) for row in index.find(line)})


def listed_rows(path: Path) -> list[dict[str, Any]] | None:
    """Return what the `split.json` of a run lists of every forgotten row; None for a file that is none.

    Raises InputError for a `split.json` without the list: of an earlier version, or a split that a user wrote.
    """
    if path.name != SPLIT_FILE:
        return None
    try:
        found = json.loads(path.read_text())["forgotten"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError(f"{path} does not list the forgotten rows; repeat the run that wrote it, with this version")
    return found


class _Index:
    """The ids of a table, found by their whole text or by the end of a path."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self._whole: dict[str, list[int]] = defaultdict(list)
        self._last: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(ids):
            self._whole[name].append(row)
            self._last[name.rsplit("/", 1)[-1]].append(row)

    def find(self, line: str) -> list[int]:
        """Return the rows that a line may mean."""
        for text in dict.fromkeys((line, line.replace("\\", "/"))):
            plain = text.removeprefix("./")
            found = self._whole.get(plain) or self._by_end(plain)
            if found:
                return found
        return []

    def _by_end(self, text: str) -> list[int]:
        last = text.rsplit("/", 1)[-1]
        if not {"/", "."} & set(text):
            return []  # a number or a word is no path
        near = self._last.get(last, [])
        return [row for row in near if _ends(self.ids[row], text) or _ends(text, self.ids[row])]


def _ends(whole: str, end: str) -> bool:
    return whole == end or whole.endswith(f"/{end.lstrip('/')}")


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise InputError(f"{path}: {reason}; give a text file with a path or id a line") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty; give a path or id a line")
    return lines


def _unfound(path: Path, lines: Sequence[str], wrong: Sequence[str], train: Rows, test: Rows) -> str:
    tested, shown = _Index(ids_of(test)), shortened(ids_of(train), 2)
    told = [f"{one}: in the test table, which no model is trained on" if tested.find(one) else one for one in wrong]
    return listing(
        f"{path}: {len(wrong)} of {len(lines)} lines name no row of the train table (its rows are called {shown}):",
        told,
    )


def _matches(name: str, values: Sequence[Any], wanted: Sequence[Any]) -> Tensor:
    """Return which rows have one of the values, bool [n]."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        found = _as_kind(name, wanted, (bool,), "true or false")
        return torch.tensor([value in found for value in values])
    if kinds and kinds <= {int, float}:
        found = _as_kind(name, wanted, (int, float), "numbers")
        return torch.tensor([value is not None and value in found for value in values])
    loose = [item for item in wanted if not isinstance(item, str | int) or isinstance(item, bool)]
    if loose:
        word = yaml_word(loose[0])
        raise InputError(
            f"where: {name} holds texts, and {word} without quotes is none; write '{word}', as it is there"
        )
    texts = [None if value is None else str(value) for value in values]
    asked = [str(item) for item in wanted]
    known = {text for text in texts if text is not None}
    missing = [text for text in asked if text not in known]
    if missing:
        near = nearest(missing[0], known)
        raise InputError(
            f"where: no row has {missing[0]!r} in {name}{near}; it holds {shortened(sorted(known), 6) or 'nothing'}"
        )
    return torch.tensor([text in asked for text in texts])


def yaml_word(value: Any) -> str:
    """Return how a value is written that YAML makes of an unquoted word.

    >>> yaml_word(1.0), yaml_word(True), yaml_word(None)
    ('1.0', 'true', 'null')
    """
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _as_kind(name: str, wanted: Sequence[Any], kinds: tuple[type, ...], what: str) -> list[Any]:
    strangers = [item for item in wanted if type(item) not in kinds]
    if strangers:
        raise InputError(f"where: {name} holds {what}, got {strangers[0]!r}; write it without quotes")
    return list(wanted)


def goes_on(kept: int, gone: int) -> bool:
    """Return whether a class of which so many rows are kept and forgotten goes on: half as many are kept, at least.

    Its forget rows are then rows among others of their kind, which are to become like unseen ones.

    >>> goes_on(36, 74), goes_on(37, 74), goes_on(0, 0)
    (False, True, True)
    """
    return 2 * kept >= gone
