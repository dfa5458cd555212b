"""Whose rows are whose: the training rows of a config by group, loaded into memory and written nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.exact.config import ExactConfig
from negmerge.experiment.prepare import choose_device
from negmerge.requests.rows import Hashed, Rows
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.rows.row_set import RowSource
from negmerge.tasks.task import Pretrained, Task, need
from negmerge.tasks.user.fingerprint import fingerprint_row


@dataclass(frozen=True)
class Population:
    """The clients of a config: the rows of each, by the name of its group, in the order of the table."""

    task: Task
    table: Rows
    rows: Mapping[str, list[int]]
    device: str

    @property
    def names(self) -> list[str]:
        """The names of the groups that have rows, sorted."""
        return sorted(self.rows)

    def hashes(self, name: str) -> list[str]:
        """Return what stands for the content of each of a client's rows, whatever other rows there are.

        The row's own hash, else that of the batch that it makes alone. Raises InputError where that has no bytes.
        """
        return [self._hash(name, row) for row in self.rows[name]]

    def _hash(self, name: str, row: int) -> str:
        known = self.table.row_hash(row) if isinstance(self.table, Hashed) else None
        found = known or fingerprint_row(self.task.batch(torch.tensor([row]), "cpu"))
        if found is None:
            raise InputError(
                f"client {name}: row {row} has no hash, and its batch is of a kind that has none, so it can't be told "
                "whether it changed; give the task's rows a row_hash"
            )
        return found

    def base(self, config: ExactConfig) -> dict[str, Tensor]:
        """Return the tensors of θ₀. Raises InputError for a checkpoint that does not fit."""
        if config.base.checkpoint is None:
            return need(self.task, Pretrained, "base.pretrained").pretrained()
        return self.task.trained(self.task.open(config.base.checkpoint))


def load_population(config: ExactConfig) -> Population:
    """Load the rows of a config. Raises InputError as loading does, and for rows without groups."""
    preparing: Any = preparing_of(config.model, config.task)
    loaded = preparing.load_data(config.data, config.model)
    if isinstance(loaded.source, RowSource) and loaded.source.groupless:
        raise InputError(f"{loaded.source.groupless}, so there are no clients; leave such rows out")
    device = choose_device(config.device)
    task = preparing.make_task(config.data, config.model, config.compute.on(device), loaded.tables, loaded.described)
    split, table = loaded.split, loaded.source.train
    parts = (split.retain, split.forget, split.validation, split.validation_forget)
    rows: dict[str, list[int]] = {}
    for row in torch.cat([part for part in parts if part is not None]).sort().values.tolist():
        rows.setdefault(table.groups[int(table.group_of[row])], []).append(row)
    return Population(task, table, rows, device)
