"""A model that can be set to any α: the merged vector is read once and applied in place."""

from pathlib import Path

import torch
from torch import nn

from negmerge.checkpoints import read_state_dict
from negmerge.merging.applying import apply_delta


class NegatedModel:
    """θ(α) = θ₀ − α·τ inside a live module, for one θ₀ and one merged vector τ.

    Every α is computed from θ₀, never from the last α, so the order of evaluations leaves no trace.
    """

    def __init__(self, model: nn.Module, vector: Path) -> None:
        self.model = model
        state = model.state_dict()
        device = next(model.parameters()).device
        self._vector = {name: delta.to(device) for name, delta in read_state_dict(vector).items()}
        self._live = {name: state[name] for name in self._vector}
        self._base = {name: value.clone() for name, value in self._live.items()}

    @torch.no_grad()
    def set_alpha(self, alpha: float) -> nn.Module:
        """Set the module's weights to θ(α) and return the module."""
        for name, live in self._live.items():
            live.copy_(apply_delta(self._base[name], self._vector[name], alpha))
        return self.model


def apply_vector(base: Path, vector: Path, alpha: float) -> dict[str, torch.Tensor]:
    """Return all tensors of the checkpoint `base`, with θ₀ − α·τ for those that the vector holds."""
    weights = read_state_dict(base)
    for name, delta in read_state_dict(vector).items():
        weights[name] = apply_delta(weights[name], delta, alpha)
    return weights
