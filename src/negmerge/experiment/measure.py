"""What is reported of a model: everything, once, at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.experiment.config import RunConfig
from negmerge.experiment.prepare import Material
from negmerge.requests.split_files import PARTS
from negmerge.scores import Columns, Draw, Role, Score, columns_needed, percent_by_group
from negmerge.scores.plugged import further_scores
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Task


@dataclass(frozen=True)
class Bench:
    """The task and the parts of a run, ready to measure any weights.

    `attacks` are the membership attacks of the task that are made, `further` are scores that were asked for; of retain
    and forget rows at most `most` are looked at. `reference` is the Retrain model, for scores that compare with it.
    """

    task: Task
    parts: Mapping[str, Tensor]
    attacks: Sequence[str]
    seed: int
    device: str
    most: int | None = None
    further: tuple[Score, ...] = ()
    reference: Path | None = None
    _seen: dict[Role, Mapping[str, Columns]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def scores(self) -> tuple[Score, ...]:
        """All scores that are reported: those of the task, and further ones that were asked for."""
        return (*self.task.scores, *self.further)

    def _rows(self, name: str) -> Tensor:
        """Return the rows of a part; of retain and forget at most `most`, the same ones for every model."""
        rows = self.parts[name]
        if self.most is None or name not in ("retain", "forget") or len(rows) <= self.most:
            return rows
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "evaluation", name))
        return rows[torch.randperm(len(rows), generator=generator)[: self.most].sort().values]

    def full_scores(self, checkpoint: Path) -> dict[str, Any]:
        """Return every reported number of the weights in `checkpoint`: the task's scores, and one number of each group.

        A score without rows, and of an attack that is not made, is None. Everything is observed in one pass over all
        parts; the test rows are touched here and nowhere else.
        """
        own = [score for score in self.task.scores if not score.attack or score.attack in self.attacks]
        wanted = [*own, *self.further]
        needed = columns_needed(wanted)
        told, column = self.task.BY_GROUP
        grouped = {column, "group"} <= set(self.task.COLUMNS)
        for part in (part for parts in told for part in parts if grouped):
            needed[part] = list(dict.fromkeys([*needed.get(part, []), column, "group"]))
        model = self.task.open(checkpoint, self.device)
        seen = self.task.observe(model, {name: self._rows(name) for name in needed}, needed)
        scores: dict[str, Any] = {score.name: None for score in self.scores}
        observed: dict[Role, Mapping[str, Columns]] = {"model": seen, **self._reference_seen(wanted)}
        scores |= {score.name: score.of(observed, self._draw(score)) for score in wanted}
        if grouped:
            scores["per_class"] = self._by_group(seen, told, column)
        return scores

    def _by_group(self, seen: Mapping[str, Columns], told: Sequence[Sequence[str]], column: str) -> list[float | None]:
        """Return the mean of a column in percent for each group, over the first parts that have rows of it.

        A group whose rows of those parts are not among those looked at has no number.
        """
        count = len(self.task.rows().groups)
        found: list[float | None] = [None] * count
        told_of: set[int] = set()
        for parts in told:
            values, group = (torch.cat([seen[part][name] for part in parts]) for name in (column, "group"))
            means = percent_by_group(values, group, count)
            found = [means[i] if i not in told_of else found[i] for i in range(count)]
            told_of |= _groups_in(self.task, self.parts, parts)
        return found

    def _reference_seen(self, wanted: Sequence[Score]) -> dict[Role, Mapping[str, Columns]]:
        """Return the columns of the Retrain model that scores need, asked for once; nothing where none does."""
        needed = columns_needed(wanted, "reference")
        if needed and self.reference is not None and "reference" not in self._seen:
            model = self.task.open(self.reference, self.device)
            self._seen["reference"] = self.task.observe(model, {name: self._rows(name) for name in needed}, needed)
        return self._seen

    def _draw(self, score: Score) -> Draw:
        return Draw(derive_seed(self.seed, score.name))


def groups_without_retain(task: Task, parts: Mapping[str, Tensor]) -> list[str]:
    """Return the names of groups that have forget rows and no retain rows, where a task tells of these by group."""
    if not {"retain", "forget"} <= {part for told in task.BY_GROUP[0] for part in told}:
        return []
    gone = _groups_in(task, parts, ("forget",)) - _groups_in(task, parts, ("retain",))
    return [task.rows().groups[number] for number in sorted(gone)]


def _groups_in(task: Task, parts: Mapping[str, Tensor], names: Sequence[str]) -> set[int]:
    group_of = task.rows().group_of
    return {number for name in names for number in group_of[parts[name]].unique().tolist()}


def further_of(config: RunConfig, material: Material) -> tuple[Score, ...]:
    """Return the further scores that a config asks for. Raises InputError for what the task or the run lacks."""
    task = material.task
    own = [part for part in material.parts if part not in PARTS]
    return further_scores(
        config.evaluation.scores, task.scores, task.COLUMNS, parts=own, reference=config.reference is not None
    )
