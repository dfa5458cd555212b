"""The config.json of OUT: the base's, with the changes that make it say what OUT holds."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from negmerge.checkpoints.plain_file import CONFIG_LIMIT, read_small
from negmerge.errors import InputError

CONFIG = "config.json"
DTYPE_KEYS = ("dtype", "torch_dtype")
FLOATS = ("float64", "float32", "float16", "bfloat16", "double", "float", "half")

KeyPath = tuple[str, ...]


def changed_config(path: Path, dtype: str | None, changes: Mapping[KeyPath, Any]) -> bytes | None:
    """Return the bytes of a config.json that says `dtype` and what `changes` say; None where it says so already.

    `dtype` goes to every `dtype` and `torch_dtype` that names a float, in sub-configs too; where a config has none,
    loaders take that of the weights. `changes` maps key paths to values: {("text_config", "tie_word_embeddings"):
    False}; dicts that are missing on the way are made. The order of the keys stays.

    Raises InputError for a file that cannot be read or is no JSON object, if there is anything to change.
    """
    if dtype is None and not changes:
        return None
    try:
        data = read_small(path, CONFIG_LIMIT)
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError
        wanted = {**({} if dtype is None else dtype_changes(content, dtype)), **changes}
        before = json.dumps(content)
        for keys, value in wanted.items():
            _set(content, keys, value)
        if json.dumps(content) == before:
            return None
        return (json.dumps(content, indent=2, ensure_ascii=data.isascii()) + "\n").encode()
    except (ValueError, RecursionError):
        raise InputError(
            f"{path} is no JSON object, so it cannot be made to say what OUT holds; repair it, or leave --dtype out"
        ) from None


def dtype_changes(config: Mapping[str, Any], dtype: str) -> dict[KeyPath, str]:
    """Return the key paths of a config that name the dtype of floats, each with `dtype` in the way it is written there.

    >>> dtype_changes({"dtype": "bfloat16", "text_config": {"torch_dtype": "torch.float16"}}, "float32")
    {('dtype',): 'float32', ('text_config', 'torch_dtype'): 'torch.float32'}
    """
    found: dict[KeyPath, str] = {}
    for keys, value in _leaves(config, ()):
        # The value may be a dict with a dtype for each sub-config.
        if isinstance(value, str) and any(key in DTYPE_KEYS for key in keys):
            prefix = "torch." if value.startswith("torch.") else ""
            if value.removeprefix("torch.") in FLOATS:
                found[keys] = prefix + dtype
    return found


def key_paths(nested: Mapping[str, Any]) -> dict[KeyPath, Any]:
    """Return the values of nested mappings by their key paths.

    >>> key_paths({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": False}})
    {('tie_word_embeddings',): False, ('text_config', 'tie_word_embeddings'): False}
    """
    return dict(_leaves(nested, ()))


def _leaves(value: Any, keys: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*keys, key))
    else:
        yield keys, value


def _set(content: dict[str, Any], keys: KeyPath, value: Any) -> None:
    for key in keys[:-1]:
        inner = content.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ValueError
        content = inner
    content[keys[-1]] = value
