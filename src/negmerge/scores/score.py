"""What a score is: a number made of columns, and what a reader must know of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

Role = Literal["model", "base", "reference"]
Columns = Mapping[str, Tensor]  # name → one number for each row of a part
Observed = Mapping[Role, Mapping[str, Columns]]  # whose answers, on which part
Aim = Literal["lower", "higher", "reference"]


class Need(NamedTuple):
    """A column that a score is made of: of which model, on which part."""

    role: Role
    part: str
    column: str


@dataclass(frozen=True)
class Draw:
    """How a score that samples rows draws them: its seed, and the most rows of a kind."""

    seed: int = 0
    most: int = 10_000


@dataclass(frozen=True)
class Score:
    """A number of a model: its name, what a table and a sentence call it, its range, its aim, and how it is computed.

    `aim` is where a model that forgot has it: lower, higher, or as the reference has it. `chance` is the value of a
    model that knows nothing, where there is one. A score `in_gap` is a percentage, and a part of the average gap; one
    that is `shown` has a column in the tables, and one `in_curve` is measured at every α that is tried. `attack` names
    the membership attack that it is the result of; other scores have none.
    """

    name: str
    title: str
    about: str
    needs: frozenset[Need]
    compute: Callable[[Observed, Draw], float | None]
    aim: Aim
    unit: str = "%"
    low: float = 0.0
    high: float | None = 100.0
    chance: float | None = None
    in_gap: bool = False
    shown: bool = True
    in_curve: bool = False
    attack: str = ""

    def of(self, observed: Observed, draw: Draw = Draw()) -> float | None:
        """Return the score, or None where a part that it is made of has no rows, or what it needs is not there."""
        if any(n.role not in observed or not len(observed[n.role][n.part][n.column]) for n in self.needs):
            return None
        value = self.compute(observed, draw)
        return None if value is None else float(value)

    def descriptor(self) -> dict[str, Any]:
        """Return what results say of the score, as plain JSON values."""
        keys = ("name", "title", "about", "unit", "low", "high", "aim", "chance", "in_gap", "shown", "attack")
        return {key: getattr(self, key) for key in keys}


def columns_needed(scores: Iterable[Score], role: Role = "model") -> dict[str, list[str]]:
    """Return the columns that scores need of a role, by part, in the order in which they are first asked for."""
    found: dict[str, list[str]] = {}
    for score in scores:
        for need in sorted(score.needs):
            columns = found.setdefault(need.part, []) if need.role == role else []
            if need.column not in columns:
                columns.append(need.column)
    return found
