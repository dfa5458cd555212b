"""PyTorch's own files (.pt, .pth, .bin), weights only: nothing in them is executed."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError

NESTS = ("state_dict", "model_state_dict", "model")
PREFIX = "module."


class TorchFile:
    """A state dict saved by torch.save, memory-mapped where its format allows.

    A dict under `state_dict`, `model_state_dict` or `model` is unwrapped, and a `module.` before every name taken
    off. Raises InputError for a file that is damaged, holds other objects than tensors, or would execute code.
    """

    def __init__(self, path: Path, shown: Path | None = None) -> None:
        self.path = shown or path
        self.file = path
        self.metadata: dict[str, str] = {}
        self._tensors = self._unwrap(self._load(path))
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
        """Release the file."""
        self._tensors = {}

    def _load(self, path: Path) -> Any:
        if not path.is_file():
            raise InputError(f"{path}: no such file; give a checkpoint that exists")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about pickle protocols, of files that are refused anyway
                return _load_lazily(path)
        except pickle.UnpicklingError as error:
            if any(word in str(error) for word in ("Unsupported global", "Unsupported class", "GLOBAL")):
                raise InputError(
                    f"{self.path} holds more than tensors and would execute code when loaded; "
                    "save its state_dict() alone"
                ) from None
            raise self._damaged() from None
        except Exception:  # a damaged file makes torch raise whatever its bytes lead to, AssertionError included
            raise self._damaged() from None

    def _damaged(self) -> InputError:
        return InputError(f"{self.path} is not a whole PyTorch file; fetch or write it again")

    def _unwrap(self, loaded: Any) -> dict[str, Tensor]:
        while isinstance(loaded, Mapping):
            inner = next((loaded[key] for key in NESTS if isinstance(loaded.get(key), Mapping)), None)
            if inner is None:
                break
            loaded = inner
        if not isinstance(loaded, Mapping) or not loaded:
            raise InputError(f"{self.path} holds no state dict; save model.state_dict()")
        wrong = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
        if wrong:
            raise InputError(f"{self.path}: {wrong[0]} is not a tensor; save model.state_dict() alone")
        names = [str(name) for name in loaded]
        cut = len(PREFIX) if all(name.startswith(PREFIX) for name in names) else 0
        return {str(name)[cut:]: value.detach() for name, value in loaded.items()}


def _load_lazily(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # the format before torch 1.6


def shared_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
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
