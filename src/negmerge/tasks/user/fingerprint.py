"""Hashes of what a user hands in: data sets by their rows, functions by their code."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def fingerprint_module(model: nn.Module) -> str:
    """Return a hash of the class and of every tensor of a module."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in model.state_dict().items():
        _feed(digest, name)
        _feed(digest, value)
    return digest.hexdigest()


def fingerprint_data(data: Any) -> str | None:
    """Return a hash of all rows of a data set; None where they cannot be hashed or differ when they are read again."""
    digests = []
    for _ in range(2):
        digest = hashlib.sha256(str(len(data)).encode())
        for row in range(len(data)):
            if not _feed(digest, data[row]):
                return None
        digests.append(digest.hexdigest())
    return digests[0] if digests[0] == digests[1] else None


def fingerprint_row(row: Any) -> str | None:
    """Return the hash of one row, with the name of its algorithm; None where it is of a kind that has no bytes."""
    digest = hashlib.sha256()
    return f"sha256:{digest.hexdigest()}" if _feed(digest, row) else None


def fingerprint_function(function: Callable[..., Any] | None) -> str | None:
    """Return a hash of a function: of its code, its defaults, and the global values and functions that it names.

    None for a function that hangs on more: one with a closure, one that names what has no bytes of its own, and
    anything else that can be called. The absent function has a hash of its own.
    """
    if function is None:
        return "default"
    digest = hashlib.sha256()
    return digest.hexdigest() if _feed_function(digest, function, set()) else None


def _feed_function(digest: Any, function: Any, seen: set[int]) -> bool:
    if not isinstance(function, FunctionType) or function.__closure__:
        return False
    if id(function) in seen:
        return True
    seen.add(id(function))
    code = function.__code__
    digest.update(code.co_code)
    if not all(_feed(digest, part) for part in (code.co_consts, code.co_names, function.__defaults__)):
        return False
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, FunctionType) and value.__module__ == function.__module__:
            if not _feed_function(digest, value, seen):
                return False
        elif not isinstance(value, ModuleType | type | FunctionType | BuiltinFunctionType) and not _feed(digest, value):
            return False
    return True


def _feed(digest: Any, value: Any) -> bool:
    """Feed a value to a digest; False where it is of a kind that has no bytes of its own."""
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif value is None or isinstance(value, str | bytes | int | float | bool | complex | np.generic):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, Mapping):
        return all(_feed(digest, key) and _feed(digest, inner) for key, inner in value.items())
    elif isinstance(value, Sequence):
        digest.update(f"{type(value).__name__} {len(value)}".encode())
        return all(_feed(digest, inner) for inner in value)
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # an image of Pillow
        digest.update(f"{value.size}".encode() + value.tobytes())
    else:
        return False
    return True
