"""Whose rows are whose: the training rows of a config by group, loaded into memory and written nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from negmerge.exact.config import ExactConfig
from negmerge.experiment.prepare import choose_device
from negmerge.requests.rows import Hashed, Rows
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.task import Pretrained, Task, need


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
        """Return what stands for the content of a client's rows: their hashes, where the rows have them."""
        known = [self.table.row_hash(row) if isinstance(self.table, Hashed) else None for row in self.rows[name]]
        table = self.table.fingerprint() if None in known else ""
        return [f"{table} {row}" if one is None else one for row, one in zip(self.rows[name], known, strict=True)]

    def base(self, config: ExactConfig) -> dict[str, Tensor]:
        """Return the tensors of θ₀. Raises InputError for a checkpoint that does not fit."""
        if config.base.checkpoint is None:
            return need(self.task, Pretrained, "base.pretrained").pretrained()
        return self.task.trained(self.task.open(config.base.checkpoint))


def load_population(config: ExactConfig) -> Population:
    """Load the rows of a config. Raises InputError as loading does, and for rows without groups."""
    preparing: Any = preparing_of(config.model, config.task)
    loaded = preparing.load_data(config.data, config.model)
    device = choose_device(config.device)
    task = preparing.make_task(config.data, config.model, config.compute.on(device), loaded.tables, loaded.described)
    split, table = loaded.split, loaded.source.train
    parts = (split.retain, split.forget, split.validation, split.validation_forget)
    rows: dict[str, list[int]] = {}
    for row in torch.cat([part for part in parts if part is not None]).sort().values.tolist():
        rows.setdefault(table.groups[int(table.group_of[row])], []).append(row)
    return Population(task, table, rows, device)
