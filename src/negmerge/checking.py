"""Values checked against a pydantic model: every mistake on a line of its own, which says what is wanted."""

import os
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from negmerge.errors import InputError, listing, nearest

Model = TypeVar("Model", bound=BaseModel)
LONGEST = 60  # characters of a refused value that are shown


class MistakesError(InputError):
    """Several things are wrong with a request; `lines` says each in full."""

    def __init__(self, where: str, lines: Iterable[str]) -> None:
        self.lines = [f"{where}: {line}" if where else line for line in lines]
        super().__init__(
            self.lines[0] if len(self.lines) == 1 else listing(f"{len(self.lines)} settings are wrong:", self.lines)
        )

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:  # a worker's error reaches its parent by pickle
        return type(self), ("", self.lines)


def mistakes_of(error: InputError) -> list[str]:
    """Return the lines of an error, one for each mistake."""
    return error.lines if isinstance(error, MistakesError) else [str(error)]


def checked(schema: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """Return `values` as a model.

    Raises MistakesError with a line for each unknown key, missing key and refused value.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise MistakesError(where, mistakes(error, schema)) from None


def mistakes(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """Return a line for each key that a model refused, in the order of the values."""
    lines: dict[str, str] = {}
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        lines.setdefault(key, _line(item, key, schema))  # of a union one line is enough
    return list(lines.values())


def _line(item: ErrorDetails, key: str, schema: type[BaseModel]) -> str:
    if item["type"] == "extra_forbidden":
        return unknown(key, schema.model_fields)
    if item["type"] == "value_error" or key not in schema.model_fields:
        return f"{key}: {item['msg'].removeprefix('Value error, ')}" if key else item["msg"]
    field = schema.model_fields[key]
    about = f": {field.description}" if field.description else ""
    if item["type"] == "missing":
        return f"{key} is missing{about}"
    places = [part + 1 for part in item["loc"][1:] if isinstance(part, int)]
    inside = f" in place {places[0]}" if places else ""
    return f"{key} must be {wanted(field)}, got {shown(item['input'])}{inside}{about}"


def unknown(key: str, known: Iterable[str]) -> str:
    """Return the line for a key that is none of the known ones."""
    names = list(known)
    return f"it does not take {key!r}{nearest(key, names)}; its settings: {', '.join(names) or 'none'}"


def shown(value: Any) -> str:
    """Return a refused value as a message shows it, on one line and cut short where it is long."""
    text = " ".join(repr(value).splitlines())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def wanted(field: FieldInfo) -> str:
    """Return in words which values a field takes.

    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> wanted(FieldInfo.from_annotation(Annotated[float, Field(gt=0, le=1)]))
    'a number above 0 and at most 1'
    """
    return _of_type(field.annotation, field.metadata)


def _of_type(kind: Any, metadata: Sequence[Any] = ()) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        words = [_of_type(part, metadata) for part in arguments if part is not NoneType]
        return "a path" if set(words) == {"text", "a path"} else " or ".join(words)
    if origin is Literal:
        *others, last = (str(choice) for choice in arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        limits = _range(metadata)
        return f"a whole number{limits}" if kind is int else f"a number{limits}" if limits else "a finite number"
    if kind is str:
        return "text"
    if origin is os.PathLike:
        return "a path"
    if origin is Mapping:
        return "a mapping of names to values"
    if origin in (list, tuple, Sequence) and arguments[0] is Any:
        return "a list"
    if origin in (list, tuple, Sequence):
        return f"a list of {_of_type(arguments[0]).removeprefix('a ')}s"
    return str(getattr(kind, "__name__", kind)).lower()


def _range(metadata: Sequence[Any]) -> str:
    bounds = {
        name: getattr(item, name) for item in metadata for name in ("gt", "ge", "lt", "le") if hasattr(item, name)
    }
    low = f"above {bounds['gt']:g}" if "gt" in bounds else f"from {bounds['ge']:g}" if "ge" in bounds else ""
    high = f"below {bounds['lt']:g}" if "lt" in bounds else f"{bounds['le']:g}" if "le" in bounds else ""
    if not high:
        return f" {low} on" if "ge" in bounds else f" {low}".rstrip()
    if "ge" in bounds:
        return f" {low} to {high}"
    most = f"at most {high}" if "le" in bounds else high
    return f" {low} and {most}" if low else f" {most}"
