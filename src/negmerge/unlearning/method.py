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


def _not(settings: Any) -> bool:
    return False


class Passes(NamedTuple):
    """Rows that one training of a method passes through the model, each as often as it passes.

    `trained` with gradients, `evaluated` without (through a frozen base beside it); `shared` with gradients, but once
    for all candidates of a search, and for all rows of the table with the same settings.
    """

    trained: int
    evaluated: int = 0
    shared: int = 0


class OwnPool(NamedTuple):
    """A pool that a method trains itself: its grid (None: that of the run's pool), and the rows.

    `start` says from which model: rows of the table that name the same share such a pool; None is one of the row's own.
    Of its members the first `members` (None: all) are trained, for `share` of their epochs.
    """

    grid: Grid | None
    part: str
    start: str | None = "base"
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
    of pools that it trains itself, on as many rows as are forgotten, of a part; `passes(settings, rows)` says which
    rows pass through the model besides, `rows` being how many there are of each part, where that is not what
    `passes_of` takes for granted; `files(settings)` files that it reads, which are inputs of the run;
    `begins(settings)`: whether it asks where the base began.
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
    passes: Callable[[Any, Mapping[str, int]], Passes] | None = None
    files: Callable[[Any], Sequence[Path]] = _nothing
    begins: Callable[[Any], bool] = _not


def method_of(name: str) -> Method:
    """Return a registered competing method.

    Raises InputError for an unknown name, and for a file that lacks something.
    """
    return registry.read("methods", name, Method)


def passes_of(method: Method, settings: Any, rows: Mapping[str, int]) -> Passes:
    """Return the rows that one training passes through the model, pools of its own aside.

    Where a method does not say, one of kind train passes its forget and retain rows through once in each epoch, and one
    that selects passes none.
    """
    if method.passes is not None:
        return method.passes(settings, rows)
    if method.KIND != "train":
        return Passes(0)
    needs = method.NEEDS if method.needs is None else method.needs(settings)
    used = sum(rows[part] for part in needs if part in ("forget", "retain"))
    return Passes(getattr(settings, "epochs", 1) * used)
