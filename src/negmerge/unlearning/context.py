"""What a competing method is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from negmerge.seeding import derive_seed
from negmerge.selection import Point, Selection
from negmerge.tasks.task import Task
from negmerge.training import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

Rank = tuple[float, ...]
Grid = Mapping[str, Sequence[Any]]  # training setting → its values
CHOSEN = "chosen"  # the folder of a row for what hangs on which α was chosen: it goes where that is chosen otherwise


@dataclass(frozen=True)
class TrainingData:
    """The rows that a method may train on, and the task that knows what becomes of them.

    `forget`, `retain` and `validation` are rows of the task's table, int64; `augment` is how the base was trained
    ("none" where it was given); `seed` is the same for all rows of the result table that go by one method; `whole`
    says that a class or a source is to be forgotten as a whole.
    """

    task: Task
    forget: Tensor
    retain: Tensor
    validation: Tensor
    device: str
    seed: int
    augment: str = "none"
    whole: bool = False

    def twin_rows(self) -> Tensor:
        """Return as many retain rows as there are forget rows, a seeded sample; all, where there are fewer."""
        import torch

        generator = torch.Generator().manual_seed(derive_seed(self.seed, "twins"))
        return self.retain[torch.randperm(len(self.retain), generator=generator)[: len(self.forget)].sort().values]


@dataclass(frozen=True)
class TrainingTask:
    """An ordinary training: on these rows, with these settings (the base's, unless given), from scratch or `start`.

    The epochs of the settings are multiplied by `epochs_factor` and rounded, to at least 1.
    """

    name: str
    directory: Path
    rows: Tensor
    settings: TrainSettings | None = None
    start: Path | None = None
    epochs_factor: float = 1.0


@dataclass(frozen=True)
class Projecting:
    """How merged vectors are projected: the strengths to try, the smallest first, and what does it.

    `project(vector, target, strength)` writes the projected vector and returns what it did, as plain JSON values;
    `seconds` is what the moments took, which all rows of a run share.
    """

    strengths: tuple[float, ...]
    project: Callable[[Path, Path, float], dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class Context:
    """What a method is given.

    `directory` is its private folder, kept between interruptions; `shared` is one that all methods of the run with the
    same policy for buffers share, `common` one of all methods, whose files are called by what they were made of; `seed`
    is the run's, by which merges that are random draw.
    `choose(vector, curve)` selects α for the merged vector in a file and keeps the evaluated points in the file
    `curve`; `choose(vector, curve, start)` does so from another model than the base. `score(vector, α)` returns what
    selection sees of θ₀ − α·τ, and `write(vector, α, target)` writes its weights, both with the row's policy for
    buffers. `judge(checkpoint)` returns what selection sees of a model, forget and retain accuracy in percent at
    least, and `rank(scores)` orders such scores by the run's objective, the smallest first: all methods are selected
    by the same. `train(task)` trains and returns the checkpoint and its seconds; `train_pool(start, rows, grid)` trains
    the pool's members, those of another grid where one is given, from a checkpoint on some rows, and returns those that
    did not diverge, and the seconds; `start()` is the checkpoint that the training of the base began with;
    `retrain(settings, directory, seed)` trains from scratch on the retain rows, or takes the run's own reference; a
    seed other than 0 draws weights and batches anew. `tell(event, …)` reports progress. `buffers` says whether merges
    take running statistics in, and `projecting` how merged vectors are projected before α is chosen; None where they
    are not. `recalibrates` says that running statistics are estimated again for every α. Tensors merge that `include`
    and `exclude` leave.
    """

    base: Path
    members: tuple[Path, ...]
    pool_seconds: float
    directory: Path
    shared: Path
    common: Path
    seed: int
    data: TrainingData
    choose: Callable[..., Selection]
    score: Callable[[Path, float], dict[str, float]]
    write: Callable[[Path, float, Path], None]
    judge: Callable[[Path], dict[str, float]]
    rank: Callable[[Mapping[str, float]], Rank]
    train: Callable[[TrainingTask], tuple[Path, float]]
    train_pool: Callable[[Path, Tensor, Grid | None], tuple[tuple[Path, ...], float]]
    start: Callable[[], Path]
    retrain: Callable[[TrainSettings | None, Path, int], tuple[Path, float]]
    tell: Callable[..., None]
    buffers: Literal["keep", "negate"] = "keep"
    projecting: Projecting | None = None
    recalibrates: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def chosen(self) -> Path:
        """The folder, below `directory`, for what is made after α was chosen and hangs on it."""
        return self.directory / CHOSEN


SHARED = "shared"  # the part of the seconds that all candidates of a search have in common: it counts once


@dataclass(frozen=True)
class Outcome:
    """What a method made: a merged vector with the α to negate it by, or a checkpoint; and how.

    `merge` is the report of the merge (consensus, kept, layers), `facts` what else the method says about its result;
    `search` is the record of a search for settings; `seconds` are by part, the pool's training included.
    """

    vector: Path | None = None
    checkpoint: Path | None = None
    selection: Selection | None = None
    member: str | None = None
    merge: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def with_own_point(selection: Selection, alpha: float, scores: Mapping[str, float]) -> Selection:
    """Return a selection of what was made after α was chosen: its curve is the base, at 0, and the point itself.

    The other points of the curve are of another vector, and would be read as this one's.
    """
    start, own = selection.curve[0], Point(alpha, dict(scores))
    curve = (start, own) if alpha > start.alpha else (own,)
    return replace(selection, alpha=alpha, scores=dict(scores), curve=curve, open_end=False)


def lasting_json(chosen: Sequence[tuple[float | None, Selection]]) -> list[dict[str, Any]]:
    """Return every α that was tested for what comes back, of every strength of a projection, as plain JSON values."""
    return [
        {
            "strength": strength,
            "alpha": one.alpha,
            "forget": one.scores["forget"],
            "retain": one.scores["retain"],
            "positions": {name: asdict(position) for name, position in one.positions.items()},
            "distance": one.distance,
            "reached": one.reached,
        }
        for strength, selection in chosen
        for one in selection.tried
    ]
