"""Published weights as the start of a training from scratch."""

from pathlib import Path

import torch
from torch import nn

from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError, listing


@torch.no_grad()
def load_pretrained(model: nn.Module, source: Path | str, head: str) -> None:
    """Put the tensors of a checkpoint (a path or a hub id) into a model, in place.

    Tensors whose names begin with `head` stay as they are where their shapes differ: published weights count other
    classes. Integer tensors (counters, indices) stay where the checkpoint lacks them, and additional ones are left out.

    Raises InputError for any other tensor that is missing, left over or of another shape.
    """
    wanted = model.state_dict()
    weights = read_state_dict(source, wanted)
    problems = []
    for name, value in wanted.items():
        if name not in weights:
            if value.is_floating_point():
                problems.append(f"missing: {name}")
        elif weights[name].shape == value.shape:
            value.copy_(weights[name])
        elif not name.startswith(head):
            problems.append(f"{name}: shape {list(weights[name].shape)}, expected {list(value.shape)}")
    problems += [f"unexpected: {n}" for n, value in weights.items() if n not in wanted and value.is_floating_point()]
    if problems:
        raise InputError(
            listing(f"model.pretrained: {source} does not fit the family; {len(problems)} tensors differ:", problems)
        )
