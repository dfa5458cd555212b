"""The rules by which rows are split, as a config gives them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from negmerge.errors import InputError, nearest
from negmerge.plug_in import PlugIn


class RowRule(BaseModel):
    """Some rows of the training data: exactly one of classes, fraction and rows."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    classes: list[str | int] | None = Field(None, min_length=1, description="class names, or their numbers from 0")
    fraction: float | None = Field(None, gt=0, lt=1, description="a seeded share of the training rows")
    rows: Path | None = Field(None, description="a file with row numbers of the train table, from 0")

    @model_validator(mode="after")
    def _one(self) -> "RowRule":
        given = [key for key in self._alternatives() if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(self._alternatives())}, got {' and '.join(given) or 'none'}"
            )
        return self

    def _alternatives(self) -> tuple[str, ...]:
        return ("classes", "fraction", "rows")


class RetainRule(RowRule):
    """Narrows the retain rows."""


class ForgetRule(RowRule):
    """What to forget: some training rows, or all rows of another source (whose settings stand beside its name)."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    source: PlugIn | None = Field(None, description="another source, to be forgotten as a whole")

    @model_validator(mode="before")
    @classmethod
    def _other_keys_belong_to_a_source(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") is None:
            unknown = [str(key) for key in values if key not in cls.model_fields]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is not known here{nearest(unknown[0], cls.model_fields)}")
        return values

    def _alternatives(self) -> tuple[str, ...]:
        return (*super()._alternatives(), "source")

    @property
    def kind(self) -> str:
        """The kind of split that the rule makes."""
        kinds = {"classes": "class", "fraction": "random", "rows": "rows", "source": "source"}
        return next(kind for key, kind in kinds.items() if getattr(self, key) is not None)

    @property
    def source_settings(self) -> dict[str, Any]:
        """The keys that belong to the other source."""
        return dict(self.model_extra or {})


class ValidationRule(BaseModel):
    """Which rows of the train table are held out of all training: a range, or else a seeded share."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    fraction: float = Field(0.1, gt=0, lt=1, description="seeded share of the train table")
    most: int = Field(5000, ge=1, description="at most so many rows")
    rows: tuple[int, int] | None = Field(None, description="[start, stop] instead of a share")


def class_indices(wanted: Sequence[str | int], classes: Sequence[str]) -> list[int]:
    """Return the indices of classes given by name or by number; a text that is a class's name is a name.

    A name that several classes have stands for all of them. Raises InputError for an unknown class, with the nearest
    name.
    """
    found = []
    for item in wanted:
        if str(item) in classes:
            found += [number for number, name in enumerate(classes) if name == str(item)]
        elif isinstance(item, int) and 0 <= item < len(classes):
            found.append(item)
        else:
            known = ", ".join(classes[:12]) + (", …" if len(classes) > 12 else "")
            raise InputError(f"unknown class {item!r}{nearest(str(item), classes)}; the classes are {known}")
    return sorted(dict.fromkeys(found))


def read_rows(path: Path, size: int) -> Tensor:
    """Return the sorted row numbers in a file, int64: a JSON list, a JSON object with `forget_rows`, or a line each.

    Raises InputError for a file that is none of these or empty, a row beyond the table of `size` rows, and duplicates.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: {getattr(error, 'strerror', None) or 'not a text'}; give a file of row numbers"
        ) from None
    try:
        values = json.loads(text)
        if isinstance(values, dict):
            values = values.get("forget_rows")
    except ValueError:
        values = [int(word) if word.isdecimal() else word for word in text.split()]
    if isinstance(values, int):
        values = [values]
    return checked_rows(values, size, str(path))


def checked_rows(values: Any, size: int, where: str, table: str = "train") -> Tensor:
    """Return row numbers, sorted, once they are whole numbers, distinct and inside the table of `size` rows.

    >>> checked_rows([4, 2], size=5, where="rows.json")
    tensor([2, 4])
    """
    if not isinstance(values, list) or not values or not all(type(value) is int for value in values):
        raise InputError(f"{where} must hold row numbers: a JSON list, a JSON object with forget_rows, or one a line")
    wrong = min(values) if min(values) < 0 else max(values)
    if not 0 <= wrong < size:
        raise InputError(f"{where}: row {wrong} is not in the {table} table, which has rows 0 to {size - 1}")
    rows = torch.tensor(sorted(values), dtype=torch.int64)
    twice = rows[1:][rows[1:] == rows[:-1]]
    if len(twice):
        raise InputError(f"{where}: row {int(twice[0])} stands twice")
    return rows


def checked_range(values: Any, size: int, where: str) -> Tensor:
    """Return the rows of a half-open range [start, stop], once it lies inside a table of `size` rows.

    >>> checked_range([2, 5], size=5, where="train_rows")
    tensor([2, 3, 4])
    """
    whole = isinstance(values, list) and len(values) == 2 and all(type(value) is int for value in values)
    if not whole or not 0 <= values[0] < values[1] <= size:
        raise InputError(f"{where} must be [start, stop] within 0 and {size}, got {values}")
    return torch.arange(values[0], values[1])


def check_inside(rows: Tensor, among: Tensor, where: str) -> None:
    """Raise InputError unless all rows are among the given ones."""
    strangers = without(rows, among)
    if len(strangers):
        raise InputError(f"{where}: row {int(strangers[0])} is not among the {len(among)} rows it may be taken from")


def without(rows: Tensor, others: Tensor) -> Tensor:
    """Return the rows that are not among the others, in their order."""
    return rows[~torch.isin(rows, others)]
