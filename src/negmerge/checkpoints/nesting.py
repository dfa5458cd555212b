"""Where the dictionary that a trainer saved keeps the model's state dict."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negmerge.checkpoints.base import is_name
from negmerge.checkpoints.torch_names import RefusedError, TensorRecord, Unknown
from negmerge.errors import InputError, listing

# The keys that code bases keep the model's weights under, and those of its moving average; the first one there counts.
WEIGHTS = (
    "state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network", "module", "weights",
    "params",
)  # fmt: skip
AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema")
DEEPEST = 8  # a pickle can put a dict into itself


def find_state(loaded: Any, shown: Path) -> tuple[dict[str, TensorRecord], tuple[str, ...]]:
    """Return the state dict of what a file holds: the file's own dict, or the one inside it that maps names to tensors.

    Where several keys hold one, the first of `WEIGHTS` counts, then of `AVERAGES`. Then a line says which was taken,
    and under which keys others of the same model lie. Other entries are not looked at.
    Raises InputError where no state dict is found, or several under keys that are not known; RefusedError where the
    weights themselves are an object that only code could make.
    """
    path: list[str] = []
    beside: dict[str, Any] = {}
    for _ in range(DEEPEST):
        key = None if _is_state(loaded) else _key_of_state(loaded, shown)
        if key is None:
            break
        outer = ".".join(path)
        named = (name for name in loaded if isinstance(name, str) and is_name(name) and name != key)
        beside.update({".".join(filter(None, (outer, name))): loaded[name] for name in named})
        path.append(key)
        loaded = loaded[key]
    state = _checked(loaded, shown)
    others = [name for name, value in beside.items() if _is_state(value) and _are_alike(state, value)]
    if not others:
        return state, ()
    note = f"{shown}: the weights under {'.'.join(path)} are taken, not those under {' or '.join(others)}; "
    return state, (note + "to take others, save them alone",)


def _are_alike(state: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two state dicts are of one model: most names are the same without what wrappers put before them."""
    ours, theirs = ({name.removeprefix("module.") for name in names} for names in (state, other))
    return 2 * len(ours & theirs) > len(ours)


def _is_state(value: Any) -> bool:
    """Whether all of a dict are tensors under names."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(entry, TensorRecord) for name, entry in value.items())
    )


def _key_of_state(loaded: Any, shown: Path) -> str | None:
    """Return the key under which the state dict lies, or None where the dict should have been one itself."""
    if not isinstance(loaded, dict):
        return None
    states = [key for key, value in loaded.items() if isinstance(key, str) and _is_state(value)]
    for key in WEIGHTS:
        if key in states:
            return key
    for key in WEIGHTS:
        if _holds_weights(loaded.get(key)):
            return key
    for key in WEIGHTS:
        value = loaded.get(key)
        if isinstance(value, Unknown):
            raise RefusedError(f"{value.what} under {key}", value.executes)
    for key in AVERAGES:
        if key in states:
            return key
    if any(isinstance(value, TensorRecord) for value in loaded.values()):
        return None
    if len(states) > 1:
        headline = f"{shown} holds {len(states)} state dicts; save the one meant alone, as {{'state_dict': …}}:"
        raise InputError(listing(headline, [f"{key:.80}" for key in states if is_name(key)]))
    return states[0] if states else None


def _holds_weights(value: Any) -> bool:
    """Whether a dict holds tensors beside something else, or a further dict under a known key."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(entry, TensorRecord) for entry in value.values()) or any(
        isinstance(value.get(key), dict | Unknown) for key in (*WEIGHTS, *AVERAGES)
    )


def _checked(loaded: Any, shown: Path) -> dict[str, TensorRecord]:
    """Return a state dict, once each of its entries is a tensor under a name that a tensor can have."""
    if isinstance(loaded, Unknown):
        raise RefusedError(loaded.what, loaded.executes)
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(f"{shown} holds no state dict; save model.state_dict()")
    for value in loaded.values():
        if isinstance(value, Unknown):
            raise RefusedError(value.what, value.executes)
    for name, value in loaded.items():
        if isinstance(name, str) and (name == "__metadata__" or not is_name(name)):
            raise InputError(f"{shown}: no tensor can be named {name!r:.80}; rename it")
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            what = name if isinstance(name, str) else f"a key that is a {type(name).__name__}"
            raise InputError(f"{shown}: {what:.80} is not a tensor; save model.state_dict() alone")
    return dict(loaded)
