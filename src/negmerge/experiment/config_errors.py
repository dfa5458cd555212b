"""What is wrong with a config, in words."""

import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from negmerge.errors import listing, nearest


def explain(error: ValidationError, where: str, schema: type[BaseModel]) -> str:
    """Return what a schema refuses, a line for each mistake, each with its place and the nearest known key."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "literal[")))
        if item["type"] == "extra_forbidden":
            known = _fields_at(schema, item["loc"][:-1])
            lines.append(f"{place}: unknown key{nearest(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            lines.append(f"{place}: missing")
        else:
            lines.append(f"{place or 'config'}: {item['msg'].removeprefix('Value error, ')}, got {item['input']!r}")
    if len(lines) == 1:
        return f"{where}: {lines[0]}"
    return listing(f"{where}: {len(lines)} settings are wrong:", lines)


def _fields_at(schema: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand at a place of the schema."""
    current: Any = schema
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel) and part in current.model_fields:
            current = current.model_fields[str(part)].annotation
        models = [a for a in (current, *typing.get_args(current)) if isinstance(a, type) and issubclass(a, BaseModel)]
        current = models[0] if models else current
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
