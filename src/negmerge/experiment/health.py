"""The health of a pool: what its members have learned of the forget rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.checkpoints import read_state_dict
from negmerge.experiment.warnings import MOVED, diverged_members, unlearned_members
from negmerge.scores import accuracy, mean_loss
from negmerge.tasks.task import Task
from negmerge.training.adapters import open_member
from negmerge.training.running_statistics import statistics_layers


def pool_health(
    task: Task, forget: Tensor, base: Path, members: Mapping[str, Path], device: str, moved: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    """Return for `base` and for every member, by name, its mean loss and its accuracy on the forget rows.

    {"base": {"loss": …, "forget": …}, NAME: …}: `loss` is that of the task's rows, in evaluation mode, without
    augmentation or label smoothing, `forget` in percent. What the task has no column for is left out.

    Statistics of rows of one kind hide what tells them from others: a member trained for a few steps may answer worse
    than the base by its running statistics alone. One that does, and whose statistics have `moved` (see
    `moved_statistics`), is measured once more with those of the base, as its weights are merged: `kept`,
    {"loss": …, "forget": …}.
    """
    columns = [name for name in ("loss", task.KNOWN) if name in task.COLUMNS]

    def measured(model: nn.Module) -> dict[str, Any]:
        seen = task.observe(model, {"forget": forget}, {"forget": columns})["forget"]
        scores = {"loss": mean_loss(seen["loss"])} if "loss" in seen else {}
        return scores | ({"forget": accuracy(seen[task.KNOWN])} if task.KNOWN in seen else {})

    checkpoints = {"base": base, **members}
    found = {name: measured(open_member(task, base, path, device)) for name, path in checkpoints.items()}
    worse = {*diverged_members(found), *unlearned_members(found)}  # asked for membership only
    for name in members:
        if name in worse and moved.get(name, 0.0) > MOVED:
            model = open_member(task, base, members[name], device)
            for own, old in zip(statistics_layers(model), statistics_layers(task.open(base, device)), strict=True):
                own.load_state_dict(_statistics(old), strict=False)
            found[name]["kept"] = measured(model)
    return found


def _statistics(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in layer.state_dict().items() if name.startswith("running_")}


def moved_statistics(base: Path, members: Mapping[str, Path]) -> dict[str, float]:
    """Return for every member how far training on the forget rows moved its running means, in standard deviations.

    √(mean over channels of (μ − μ₀)² / σ₀²), with the base's μ₀ and σ₀; nothing for a model without running statistics,
    and for members that are adapters, which have none.
    """
    before = read_state_dict(base)
    means = [name for name in before if name.endswith("running_mean")]
    if not means:
        return {}
    variances = torch.cat([before[name.replace("running_mean", "running_var")].double() + 1e-5 for name in means])
    start = torch.cat([before[name].double() for name in means])
    found = {}
    for name, checkpoint in members.items():
        if checkpoint.is_dir():
            continue
        after = read_state_dict(checkpoint)
        moved = torch.cat([after[mean].double() for mean in means]) - start
        found[name] = float((moved.square() / variances).mean().sqrt())
    return found


def mean_cosine(cosine: list[list[float]]) -> float | None:
    """Return the mean over all pairs of different members of an N × N matrix; None for one member.

    >>> mean_cosine([[1.0, 0.25], [0.25, 1.0]])
    0.25
    """
    values = torch.tensor(cosine, dtype=torch.float64)
    count = len(values)
    return None if count < 2 else float((values.sum() - values.trace()) / (count * (count - 1)))
