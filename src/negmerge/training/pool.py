"""The pool: every combination of a grid of training settings, one fine-tuning on the forget set each."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from negmerge.errors import InputError, nearest
from negmerge.training.settings import TrainSettings

RANK = "r"  # in a grid: the rank of members that are adapters


@dataclass(frozen=True)
class Member:
    """A member to be: its name (index and the settings that vary) and its whole settings.

    Where the grid varies the rank of adapters, `rank` is the member's, and `drawn` the largest: that of the one draw of
    A, of which each member starts with the first rows.
    """

    name: str
    settings: TrainSettings
    rank: int | None = None
    drawn: int | None = None


def expand_grid(train: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Member]:
    """Return a member for every combination of the grid's values over the settings in `train`.

    The last setting of the grid varies fastest; `r` among them is the rank of adapters. Raises InputError for a setting
    that training does not have, that `train` has too, or that has no values, for a value that is refused, and for two
    members with the same settings.

    >>> [m.name for m in expand_grid({"epochs": 3}, {"lr": [1e-3, 1e-4]})]
    ['000-lr0.001', '001-lr0.0001']
    """
    for key, values in grid.items():
        if key != RANK and key not in TrainSettings.model_fields:
            raise InputError(f"pool.grid: {key!r} is no training setting{nearest(key, TrainSettings.model_fields)}")
        if key in train:
            raise InputError(f"pool: {key} is in train and in grid; leave it out of one, or write null there")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InputError(f"pool.grid.{key}: give a list of at least one value, got {values!r}")
    ranks = grid.get(RANK, ())
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1 for rank in ranks):
        raise InputError(f"pool.grid.{RANK}: a rank is a whole number from 1, got {list(ranks)}")
    members: list[Member] = []
    seen: dict[tuple[str, Any], str] = {}
    for i, values in enumerate(itertools.product(*grid.values())):
        varied = dict(zip(grid, values, strict=True))
        name = "-".join([f"{i:03d}", *(f"{key}{_short(value)}" for key, value in varied.items())])
        rank = varied.pop(RANK, None)
        try:
            settings = TrainSettings(**{**train, **varied})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"pool member {name}: {where}: {first['msg']}") from None
        same = seen.setdefault((settings.model_dump_json(), rank), name)
        if same != name:
            raise InputError(f"pool members {same} and {name} have the same settings; vary `seed` for repetitions")
        members.append(Member(name, settings, rank, max(ranks, default=None)))
    return members


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in ".+" else "_" for c in text)
