"""Methods that train or select. A new one is a file in this package.

A method's module has `KIND` ("select" or "train"), `NEEDS` (the data it may use, of pool, forget, retain, validation,
reference), `SUMMARY` (one line), `REFERENCE` (its source), `Settings` (pydantic) and
`unlearn(context, settings) -> Outcome`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from negmerge.selection import Selection
from negmerge.training import TrainSettings


@dataclass(frozen=True)
class Context:
    """What a method is given.

    `directory` is its private folder, kept between interruptions; `choose(vector, curve)` selects α for the merged
    vector in a file and keeps the evaluated points in the file `curve`; `retrain(settings, seed)` trains a model from
    scratch on the retain rows (with the settings of the base, unless given; a seed other than 0 draws weights and
    batches anew) and returns its checkpoint and seconds.
    """

    base: Path
    members: tuple[Path, ...]
    pool_seconds: float
    directory: Path
    choose: Callable[[Path, Path], Selection]
    retrain: Callable[[TrainSettings | None, int], tuple[Path, float]]


@dataclass(frozen=True)
class Outcome:
    """What a method made: a merged vector with the α to negate it by, or a checkpoint; and how.

    `merge` is the report of the merge (consensus, kept, layers); `seconds` are by part, the pool's training included.
    """

    vector: Path | None = None
    checkpoint: Path | None = None
    selection: Selection | None = None
    member: str | None = None
    merge: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
