"""What a competing method's file may hold, with a default for everything that it may leave out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from negmerge import registry
from negmerge.unlearning.context import Context, Grid, Outcome


def _none(members: int) -> int:
    return 0


def _nothing(settings: Any) -> tuple[()]:
    return ()


def _no_passes(settings: Any, rows: Mapping[str, int]) -> int:
    return 0


def _not(settings: Any) -> bool:
    return False


class OwnPool(NamedTuple):
    """A pool that a method trains itself: its grid (None: that of the run's pool), and the rows.

    Of its members the first `members` (None: all) are trained, for `share` of their epochs.
    """

    grid: Grid | None
    part: str
    members: int | None = None
    share: float = 1.0


@dataclass(frozen=True)
class Method:
    """The contents of a competing method's file.

    `KIND` is "select" or "train"; `NEEDS` are the data that it may use, of pool, forget, retain, validation, reference;
    `needs(settings)`, where what it uses depends on them; `SUMMARY` is one line, `REFERENCE` its source; `Settings` is
    pydantic. `unlearn(context, settings)` is called again after an interruption, with the same folder: what takes long
    keeps its state there, and what was finished is read back.

    `REQUIRES` are the capabilities that it asks of a task: a run with a task that lacks one is refused. `SEARCH` maps
    settings of one of kind train to the values that are tried where the config gives none. `SCRATCH` says that it
    trains from scratch, by its setting `train`, and `EXACT` that it makes what the reference is: the two then share
    their training. `EACH_MEMBER` says that it chooses α for every member alone, which all such methods share, and
    `trials(members)` for how many vectors besides: a run's work is counted by these. `pools(settings)` are the grids
    of pools that it trains itself, on as many rows as are forgotten, of a part; `passes(settings, rows)` says how many
    rows pass through training besides, `rows` being how many there are of each part; `files(settings)`
    files that it reads, which are inputs of the run; `begins(settings)`: whether it asks where the base began.
    """

    KIND: Literal["select", "train"]
    NEEDS: tuple[str, ...]
    SUMMARY: str
    REFERENCE: str
    Settings: type[BaseModel]
    unlearn: Callable[[Context, Any], Outcome]
    needs: Callable[[Any], tuple[str, ...]] | None = None
    REQUIRES: tuple[type, ...] = ()
    SEARCH: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    SCRATCH: bool = False
    EXACT: bool = False
    EACH_MEMBER: bool = False
    trials: Callable[[int], int] = _none
    pools: Callable[[Any], Sequence[OwnPool]] = _nothing
    passes: Callable[[Any, Mapping[str, int]], int] = _no_passes
    files: Callable[[Any], Sequence[Path]] = _nothing
    begins: Callable[[Any], bool] = _not


def method_of(name: str) -> Method:
    """Return a registered competing method.

    Raises InputError for an unknown name, and for a file that lacks something.
    """
    return registry.read("methods", name, Method)
