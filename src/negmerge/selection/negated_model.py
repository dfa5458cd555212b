"""A model that can be set to any α: the merged vector is read once and applied in place."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from negmerge.checkpoints import open_checkpoint, read_state_dict
from negmerge.merging.buffers import negated


class NegatedModel:
    """θ(α) = θ₀ − α·τ inside a live module, for one θ₀ and one merged vector τ.

    θ₀ is read from its file, tensor by tensor, for every α: one model and one vector are in memory, and the order of
    evaluations leaves no trace. Variances among what was merged stay at 1e-5 or above. `adapt(model)` may then move
    what was not merged, the buffers of θ₀; at α = 0 nothing was merged, and it is not called.
    """

    def __init__(
        self, model: nn.Module, vector: Path, base: Path, adapt: Callable[[nn.Module], None] | None = None
    ) -> None:
        self.model = model
        self._adapt = adapt
        state = model.state_dict()
        device = next(model.parameters()).device
        self._vector = {name: delta.to(device) for name, delta in read_state_dict(vector).items()}
        self._live = {name: state[name] for name in self._vector}
        self._origin = open_checkpoint(base)
        self._buffers = [(value, value.clone()) for name, value in model.named_buffers() if name not in self._vector]

    @torch.no_grad()
    def set_alpha(self, alpha: float) -> nn.Module:
        """Set the module's weights to θ(α) and return the module."""
        for name, live in self._live.items():
            origin = self._origin.read(name).reshape(live.shape).to(live.device)
            live.copy_(negated(name, origin, self._vector[name], alpha))
        if self._adapt is not None:
            for buffer, value in self._buffers:
                buffer.copy_(value)
            if alpha != 0.0:
                self._adapt(self.model)
        return self.model


def apply_vector(base: Path, vector: Path, alpha: float) -> dict[str, torch.Tensor]:
    """Return all tensors of the checkpoint `base`, θ₀ − α·τ where the vector has them, variances at 1e-5 or above."""
    weights = read_state_dict(base)
    for name, delta in read_state_dict(vector).items():
        weights[name] = negated(name, weights[name], delta, alpha)
    return weights
