"""A state dict in memory, seen as a checkpoint."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from negmerge.checkpoints.torch_file import shared_names


class StateDict:
    """Tensors in memory under the interface of a checkpoint; `name` stands for the path in messages."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        self._tensors = {key: value.detach().cpu() for key, value in tensors.items()}
        self.path = self.file = Path(name)
        self.metadata: dict[str, str] = {}
        self.names = tuple(self._tensors)
        self.tied = shared_names(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype of a tensor."""
        return self._tensors[name].dtype

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return elements start … stop of the flattened tensor as a new 1-D tensor."""
        return self._tensors[name].reshape(-1)[start:stop].clone()

    def close(self) -> None:
        """Nothing is open."""
