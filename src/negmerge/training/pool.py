"""The pool: every combination of a grid of training settings, one fine-tuning on the forget set each."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from negmerge.errors import InputError, nearest
from negmerge.training.settings import TrainSettings


@dataclass(frozen=True)
class Member:
    """A member to be: its name (index and the settings that vary) and its whole settings."""

    name: str
    settings: TrainSettings


def expand_grid(train: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Member]:
    """Return a member for every combination of the grid's values over the settings in `train`.

    The last setting of the grid varies fastest. Raises InputError for a setting that training does not have, that
    `train` has too, or that has no values, for a value that is refused, and for two members with the same settings.

    >>> [m.name for m in expand_grid({"epochs": 3}, {"lr": [1e-3, 1e-4]})]
    ['000-lr0.001', '001-lr0.0001']
    """
    for key, values in grid.items():
        if key not in TrainSettings.model_fields:
            raise InputError(f"pool.grid: {key!r} is no training setting{nearest(key, TrainSettings.model_fields)}")
        if key in train:
            raise InputError(f"pool: {key} is in train and in grid; leave it out of one, or write null there")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InputError(f"pool.grid.{key}: give a list of at least one value, got {values!r}")
    members: list[Member] = []
    seen: dict[str, str] = {}
    for i, values in enumerate(itertools.product(*grid.values())):
        varied = dict(zip(grid, values, strict=True))
        name = "-".join([f"{i:03d}", *(f"{key}{_short(value)}" for key, value in varied.items())])
        try:
            settings = TrainSettings(**{**train, **varied})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"pool member {name}: {where}: {first['msg']}") from None
        same = seen.setdefault(settings.model_dump_json(), name)
        if same != name:
            raise InputError(f"pool members {same} and {name} have the same settings; vary `seed` for repetitions")
        members.append(Member(name, settings))
    return members


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in ".+" else "_" for c in text)
