"""What a test is given: the task, the rows, and the weights of base, Retrain and the model that is judged."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from negmerge.evidence.scale import Role
from negmerge.scores import Columns
from negmerge.seeding import derive_seed
from negmerge.tasks.task import ACCURACY, RowOutputs, Task

Made = TypeVar("Made")
ROLES: tuple[Role, ...] = ("base", "reference", "model")
MOST = 1000  # rows of a part that a test looks at, unless said
CHUNK = 128  # rows whose outputs are held at a time


@dataclass(frozen=True)
class Seeds:
    """The models of all seeds of a run, each seed with a base of its own, for what is asked of a method."""

    bases: tuple[Path, ...]
    retrained: tuple[Path, ...]
    unlearned: tuple[Path, ...]


@dataclass(frozen=True)
class Shadows:
    """Models that were made as the judged one was, each of a base of its own that had seen some of the forget rows.

    They come in pairs (0 and 1, 2 and 3, …), of which each forget row was seen, and unlearned, by one. `seen` are the
    rows that each saw and unlearned, other ones than forget rows among them; `bases` are the models before unlearning.
    `seconds` is what training them took, `about` says how they were unlearned.
    """

    seen: tuple[Tensor, ...]
    bases: tuple[Path, ...]
    unlearned: tuple[Path, ...]
    seconds: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A model that is said to have forgotten, beside the base and Retrain.

    `reference` is Retrain; None where there is none, which only `against_unseen` of a test meets.
    `parts` are the rows of the split, by name; of forget and of other rows a test looks at `most` at most, the same
    ones in all three models. `kind` is that of the split: class, source, random, rows. `seeds` are the models of all
    seeds, where each has a base of its own. `folder` is the directory of the run, `members` are
    the files of its pool, `shipped` those of the directory that would be shipped; none of them where a control is read.
    `references` are further Retrains, of which `model` is none. `shadows` makes so many shadow models, an even number;
    None where none can be made.
    """

    task: Task
    parts: Mapping[str, Tensor]
    base: Path
    reference: Path | None
    model: Path
    seed: int
    kind: str = "class"
    device: str = "cpu"
    most: int = MOST
    seeds: Seeds | None = None
    folder: Path | None = None
    members: tuple[Path, ...] = ()
    shipped: tuple[Path, ...] = ()
    references: tuple[Path, ...] = ()
    shadows: Callable[[int], Shadows] | None = None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)  # shared by subjects of one request

    def open(self, role: Role) -> nn.Module:
        """Return a model in evaluation mode, a new one each time."""
        return self.task.open(getattr(self, role), self.device)

    def kept(self, role: Role) -> nn.Module:
        """Return a model in evaluation mode that nobody changes: opened once."""
        model: nn.Module = self.once((getattr(self, role), "model"), lambda: self.open(role))
        return model

    def further(self) -> Iterator[nn.Module]:
        """Yield the further Retrains in evaluation mode: models that never saw the forget rows, and are not judged."""
        for path in self.references:
            yield self.once((path, "model"), partial(self.task.open, path, self.device))

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what is made at the first call with this key: what another subject of the request needs as well."""
        if key not in self.memo:
            self.memo[key] = make()
        made: Made = self.memo[key]
        return made

    def rows(self, part: str) -> Tensor:
        """Return the rows of a part that tests look at, int64, in order: all of them, or a seeded sample of `most`."""
        rows = self.parts[part]
        if len(rows) <= self.most:
            return rows
        return rows[torch.randperm(len(rows), generator=self.generator("rows", part))[: self.most].sort().values]

    def generator(self, *parts: int | str) -> torch.Generator:
        """Return a generator of a test's own."""
        return torch.Generator().manual_seed(derive_seed(self.seed, "evidence", *parts))

    def observe(self, model: nn.Module, rows: Tensor, columns: Sequence[str]) -> Columns:
        """Return columns of some rows, float64 or bool [n] each."""
        return self.task.observe(model, {"rows": rows}, {"rows": columns})["rows"]

    def known(self, model: nn.Module, rows: Tensor) -> Tensor:
        """Return how well a model knows each row, in percent, float64 [n], as the task measures it.

        100 for each row that it gets right and 0 for each other one; of a language model the probability of the answer.
        """
        column = self.task.KNOWN
        return 100.0 * self.observe(model, rows, (column,))[column].double()

    @property
    def counts(self) -> bool:
        """Whether what is measured is the share of rows that are right, and no mean of something else."""
        return self.task.MEASURE == ACCURACY

    def outputs(self, model: nn.Module, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float32 logits [b, classes] and labels int64 [b], on the CPU, of a few rows at a time."""
        assert isinstance(self.task, RowOutputs)
        with torch.inference_mode():
            for some in rows.split(CHUNK):
                batch = self.task.batch(some, self.device)
                yield self.task.outputs(model, batch).float().cpu(), self.task.labels(batch).cpu().flatten()

    def forgotten_groups(self) -> Tensor:
        """Return the groups that stand among the forget rows and not among those to keep, int64; often none."""
        groups: Tensor = self.task.rows().group_of
        if not len(groups):
            return groups
        gone: Tensor = groups[self.parts["forget"]].unique()
        return gone[~torch.isin(gone, groups[self.parts["retain"]])]
