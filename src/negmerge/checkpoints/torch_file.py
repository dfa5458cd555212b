"""PyTorch's own files (.pt, .pth, .bin), weights only: nothing in them is executed."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints.memory import StateDict
from negmerge.errors import InputError

NESTS = ("state_dict", "model_state_dict", "model")
PREFIX = "module."


def open_torch_file(path: Path, shown: Path) -> StateDict:
    """Open a state dict saved by torch.save, memory-mapped where its format allows.

    A dict under `state_dict`, `model_state_dict` or `model` is unwrapped, and a `module.` before every name taken
    off. Raises InputError for a file that is damaged, holds other objects than tensors, or would execute code.
    """
    return StateDict(_unwrap(_load(path, shown), shown), shown, (path,))


def _load(path: Path, shown: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a checkpoint that exists")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols, of files that are refused anyway
            return _load_lazily(path)
    except pickle.UnpicklingError as error:
        if any(word in str(error) for word in ("Unsupported global", "Unsupported class", "GLOBAL")):
            raise InputError(
                f"{shown} holds more than tensors and would execute code when loaded; save its state_dict() alone"
            ) from None
        raise _damaged(shown) from None
    except Exception:  # a damaged file makes torch raise whatever its bytes lead to, AssertionError included
        raise _damaged(shown) from None


def _damaged(shown: Path) -> InputError:
    return InputError(f"{shown} is not a whole PyTorch file; fetch or write it again")


def _unwrap(loaded: Any, shown: Path) -> dict[str, Tensor]:
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in NESTS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{shown} holds no state dict; save model.state_dict()")
    wrong = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if wrong:
        raise InputError(f"{shown}: {wrong[0]} is not a tensor; save model.state_dict() alone")
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
