"""The weights of a classifier, or of several of one family that answer together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.checkpoints import read_state_dict
from negmerge.checkpoints.wrappers import matched
from negmerge.errors import InputError, listing
from negmerge.tasks.misfits import misfits

PREFIX = "shards."


class Ensemble(nn.Module):
    """Models whose probabilities are averaged; its tensors are named `shards.INDEX.NAME`."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.shards = nn.ModuleList(models)

    def logits(self, one: Callable[[nn.Module, Any], Tensor], batch: Any) -> Tensor:
        """Return log(mean over the models of softmax(one(model, batch))), [b, classes]: the softmax is that mean."""
        logs = torch.stack([one(model, batch).log_softmax(1) for model in self.shards])
        return logs.logsumexp(0) - torch.tensor(float(len(logs)), device=logs.device).log()


def join_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors of an ensemble from those of its models, in their order.

    >>> list(join_weights([{"w": torch.zeros(1)}, {"w": torch.ones(1)}]))
    ['shards.0.w', 'shards.1.w']
    """
    return {f"{PREFIX}{i}.{name}": value for i, state in enumerate(states) for name, value in state.items()}


def count_models(names: Iterable[str]) -> int:
    """Return how many models the tensors of an ensemble belong to; 0 where a name is not one of an ensemble's.

    >>> count_models(["shards.0.w", "shards.1.w"]), count_models(["shards.0.w", "w"])
    (2, 0)
    """
    found = list(names)
    if not found or not all(name.startswith(PREFIX) for name in found):
        return 0
    return len({name.split(".")[1] for name in found})


def load_classifier(build: Callable[[], nn.Module], checkpoint: Path, what: str) -> nn.Module:
    """Return what `build` builds, or an ensemble of it where the names are an ensemble's, with a checkpoint's weights.

    Wrappers in the names (`module.`, `_orig_mod.`, …) are taken off. Raises InputError, naming `what` was built, where
    a tensor is missing, left over or of another shape.
    """
    weights = read_state_dict(checkpoint)
    together = count_models(weights)
    model = Ensemble(build() for _ in range(together)) if together else build()
    wanted = model.state_dict()
    plain = matched(wanted, tuple(weights), str(checkpoint))
    weights = {plain.get(name, name): value for name, value in weights.items()}
    problems = misfits(weights, wanted)
    if problems:
        headline = f"{checkpoint} does not fit {what}; {len(problems)} tensors differ (check model: in the config):"
        raise InputError(listing(headline, problems))
    model.load_state_dict(weights, strict=True)
    return model
