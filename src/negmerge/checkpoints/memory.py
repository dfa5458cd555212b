"""A state dict, seen as a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from negmerge.checkpoints.base import Checkpoint
from negmerge.checkpoints.dtypes import DType, Raw, of_torch

if TYPE_CHECKING:
    from torch import Tensor


class StateDict(Checkpoint):
    """Tensors, in memory or memory-mapped, under the interface of a checkpoint; `path` is how messages name them."""

    def __init__(self, tensors: Mapping[str, "Tensor"], path: Path, files: tuple[Path, ...] = ()) -> None:
        self._tensors = {key: value.detach().cpu() for key, value in tensors.items()}
        self.path = path
        self.files = files
        self.metadata: dict[str, str] = {}
        self.names = tuple(self._tensors)
        self.tied = shared_names(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> DType:
        """Return the dtype of a tensor."""
        return of_torch(self._tensors[name].dtype)

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Return elements start … stop of the flattened tensor as they are stored, as a new 1-D array."""
        return stored(self._tensors[name].reshape(-1)[start:stop].clone())

    def locate(self, name: str) -> tuple[int, int] | None:
        """Return −1 and the address of a tensor that is contiguous."""
        tensor = self._tensors[name]
        return (-1, tensor.data_ptr()) if tensor.is_contiguous() else None

    def close(self) -> None:
        """Let go of the tensors."""
        self._tensors = {}


def stored(tensor: "Tensor") -> Raw:
    """Return the elements of a 1-D tensor on the CPU as a file stores them; the memory is shared."""
    import torch

    dtype = of_torch(tensor.dtype)
    values: Raw = tensor.contiguous().view(torch.uint8).numpy().view(dtype.stored)
    return values


def shared_names(tensors: Mapping[str, "Tensor"]) -> dict[str, str]:
    """Return the names that are views of all of an earlier tensor's memory, each with that tensor's name."""
    first: dict[tuple[Any, ...], str] = {}
    tied = {}
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            continue
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if first.setdefault(key, name) != name:
            tied[name] = first[key]
    return tied
