"""The rules by which rows are split, as a config gives them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from torch import Tensor

from negmerge.errors import InputError, nearest
from negmerge.plug_in import PlugIn
from negmerge.requests.naming import yaml_word


def _exact_names(value: Any) -> Any:
    """Return a list of names, a name alone as a list of one.

    Raises ValueError for what YAML has made something else of, with how to write it.
    """
    if value is not None and not isinstance(value, list | dict):
        value = [value]
    for item in value if isinstance(value, list) else ():
        if item is None or isinstance(item, bool | float):
            word = yaml_word(item)
            raise ValueError(f"{word} without quotes is no name; write '{word}' (in quotes), as it stands in the data")
    return value


def _lists(value: Any) -> Any:
    """Return conditions with a list of values for each column; a value alone is a list of one."""
    if not isinstance(value, dict):
        return value
    return {name: one if isinstance(one, list) else [one] for name, one in value.items()}


class Hardest(BaseModel):
    """The most memorised rows, as models tell that are trained on halves of the rows; a number alone is `n`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1, description="rows to forget")
    models: int = Field(4, ge=2, le=100, multiple_of=2, description="trained on halves of the rows, to rank them")


def _with_number(value: Any) -> Any:
    return {"n": value} if isinstance(value, int) and not isinstance(value, bool) else value


Names = Annotated[list[str | int], BeforeValidator(_exact_names)]
Conditions = Annotated[dict[str, list[bool | int | float | str | None]], BeforeValidator(_lists)]


class RowRule(BaseModel):
    """Some rows of the training data: exactly one of the ways to name them."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    classes: Names | None = Field(
        None, min_length=1, description="class names, exactly as they stand in the data, or numbers from 0"
    )
    groups: Names | None = Field(None, min_length=1, description="names of groups: of classes, authors, documents")
    files: Path | None = Field(None, description="a file with paths or ids of rows, one a line")
    where: Conditions | None = Field(
        None, min_length=1, description="{column: [values]}: rows that have one of the values in every column"
    )
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
        return ("classes", "groups", "files", "where", "fraction", "rows")

    @property
    def whole_groups(self) -> list[str | int] | None:
        """The groups that are named as a whole, by `classes` or by `groups`."""
        return self.classes if self.groups is None else self.groups


class RetainRule(RowRule):
    """Narrows the retain rows."""


class ForgetRule(RowRule):
    """What to forget: some training rows, or all rows of another source (whose settings stand beside its name)."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    source: PlugIn | None = Field(None, description="another source, to be forgotten as a whole")
    hardest: Annotated[Hardest, BeforeValidator(_with_number)] | None = Field(
        None, description="the n most memorised training rows: n, or {n, models}; trains models to rank the rows"
    )

    @model_validator(mode="before")
    @classmethod
    def _other_keys_belong_to_a_source(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") is None:
            unknown = [str(key) for key in values if key not in cls.model_fields]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is not known here{nearest(unknown[0], cls.model_fields)}")
        return values

    def _alternatives(self) -> tuple[str, ...]:
        return (*super()._alternatives(), "source", "hardest")

    @property
    def kind(self) -> str:
        """The kind of split that the rule makes."""
        kinds = {"classes": "class", "groups": "class", "fraction": "random", "source": "source"}
        kinds |= dict.fromkeys(("rows", "files", "where", "hardest"), "rows")
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
    of: Literal["train", "test"] = Field(
        "train", description="test: a share of the test table, whose rows are unseen (language models)"
    )

    @model_validator(mode="after")
    def _no_range_of_test(self) -> "ValidationRule":
        if self.of == "test" and self.rows is not None:
            raise ValueError("rows count in the train table: give a fraction, or leave of: test out")
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the table where it is the train table: configs are then those of runs that did not know it."""
        found: dict[str, Any] = serialize(self)
        return {key: value for key, value in found.items() if key != "of" or value != "train"}


def group_numbers(wanted: Sequence[str | int], groups: Sequence[str], noun: str = "class") -> list[int]:
    """Return the numbers of groups given by their exact name, or by number where no group is called by a number.

    A name that several groups have stands for all of them. Raises InputError for an unknown name, with the nearest one,
    and for a number that is no name where names are numbers: 1 is not 001.
    """
    found = []
    for item in wanted:
        if str(item) in groups:
            found += [number for number, name in enumerate(groups) if name == str(item)]
        elif isinstance(item, int) and 0 <= item < len(groups) and not any(_reads_as_number(name) for name in groups):
            found.append(item)
        else:
            known = ", ".join(groups[:12]) + (", …" if len(groups) > 12 else "")
            same = [name for name in groups if _same_number(name, item)]
            hint = f"; write '{same[0]}' (in quotes) if that is meant" if same else nearest(str(item), groups)
            raise InputError(f"unknown {noun} {item!r}{hint}; the {_plural(noun)} are {known}")
    return sorted(dict.fromkeys(found))


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _reads_as_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _same_number(name: str, item: str | int) -> bool:
    return _reads_as_number(name) and _reads_as_number(str(item)) and float(name) == float(item)


def read_rows(path: Path, size: int) -> Tensor:
    """Return the sorted row numbers in a file, int64: a JSON list, a JSON object with `forget_rows`, or a line each.

    Raises InputError for a file that is none of these or empty, a row beyond the table of `size` rows, and duplicates.
    """
    return checked_rows(values_in(path, str(path), "forget_rows"), size, str(path))


def values_in(path: Path, where: str, key: str | None = None) -> Any:
    """Return what a file has in the place of row numbers: a JSON value, of an object that under `key`, or words.

    Raises InputError for a file that cannot be read as text.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{where}: {getattr(error, 'strerror', None) or 'not a text'}; give a file of row numbers"
        ) from None
    try:
        values = json.loads(text)
    except ValueError:
        values = [int(word) if word.isdecimal() else word for word in text.split()]
    if isinstance(values, dict) and key is not None:
        values = values.get(key)
    return [values] if type(values) is int else values


def checked_rows(
    values: Any, size: int, where: str, table: str = "train", forms: str = "a JSON object with forget_rows, "
) -> Tensor:
    """Return row numbers, sorted, once they are whole numbers, distinct and inside the table of `size` rows.

    >>> checked_rows([4, 2], size=5, where="rows.json")
    tensor([2, 4])
    """
    check_numbers(values, where, forms)
    wrong = min(values) if min(values) < 0 else max(values)
    if not 0 <= wrong < size:
        raise InputError(f"{where}: row {wrong} is not in the {table} table, which has rows 0 to {size - 1}")
    rows = torch.tensor(sorted(values), dtype=torch.int64)
    twice = rows[1:][rows[1:] == rows[:-1]]
    if len(twice):
        raise InputError(f"{where}: row {int(twice[0])} stands twice")
    return rows


def check_numbers(values: Any, where: str, forms: str = "") -> None:
    """Raise InputError unless something is a list of one whole number or more; `forms` are further ones of a file."""
    if not isinstance(values, list) or not values or not all(type(value) is int for value in values):
        raise InputError(f"{where} must hold row numbers: a JSON list, {forms}or one a line")


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
