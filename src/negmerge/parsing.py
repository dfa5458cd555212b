"""Values as people write them in a config or after `--set KEY=`: YAML without its surprises.

A number is a number in every spelling (`0.1`, `.1`, `1e-1`, `1_000`); true, false and null are themselves. Everything
else is text: `yes`, `on`, `001`, `0o7`, `1:30` and `2024-05-01`, of which YAML 1.1 makes booleans, other numbers, and
dates.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from negmerge.errors import InputError

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
DECIMAL = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
TRUE, FALSE, NULL = ("true", "True", "TRUE"), ("false", "False", "FALSE"), ("null", "Null", "NULL", "~", "")


def scalar(text: str) -> Any:
    """Return what an unquoted word means: an integer, a float, a boolean, None, or the text itself.

    >>> scalar("1e-1"), scalar("1_000"), scalar("true"), scalar("yes"), scalar("007")
    (0.1, 1000, True, 'yes', '007')
    """
    if INTEGER.fullmatch(text):
        return int(text)
    if DECIMAL.fullmatch(text) and not re.match(r"[-+]?0[0-9_]", text):
        return float(text)
    if text in TRUE or text in FALSE:
        return text in TRUE
    return None if text in NULL else text


class _Loader(yaml.SafeLoader):
    """The safe loader, with `scalar` for what an unquoted word means, and no key twice in a mapping."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("<<"))]}  # noqa: RUF012  # its own form

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> Any:
    return scalar(node.value) if node.style is None else node.value


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML document. Raises yaml.YAMLError for what is none."""
    try:
        return yaml.load(text, _Loader)  # a safe loader, as its base class is
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from None


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts quotes around a text that `scalar` would read as something else, too."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = isinstance(scalar(text), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _represent_text)


def dump_yaml(value: Any) -> str:
    """Return plain values as YAML that `parse_yaml`, and any other reader of YAML, turns into the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse_value(text: str) -> Any:
    """Return the value that a text stands for after KEY=: a word, or YAML's `[a, b]` and `{key: value}`.

    Numbers with commas between them are a list: `0.5,0.5` is `[0.5, 0.5]`. Raises InputError for what is not YAML.

    >>> parse_value("8e-1"), parse_value("0.5,-.5"), parse_value("[a, 1]"), parse_value("{a: 1:30}")
    (0.8, [0.5, -0.5], ['a', 1], {'a': '1:30'})
    """
    numbers = all(DECIMAL.fullmatch(part.strip()) for part in text.removesuffix(",").split(","))
    try:
        return parse_yaml(f"[{text}]" if "," in text and numbers else text)
    except yaml.YAMLError:
        raise InputError(f"{text!r} is not a YAML value; put a text with special characters in quotes") from None


def parse_change(text: str, key: str, example: str) -> tuple[str, Any]:
    """Return KEY and the value of `--set KEY=VALUE`; `key` is the expression that a key matches.

    Raises InputError, with the example, for what is not of that form, and for a value that is empty or not YAML.
    """
    found = re.fullmatch(rf"({key})=(.*)", text, re.DOTALL)
    if not found:
        raise InputError(f"--set {text}: write {example}")
    if not found[2].strip():
        raise InputError(f"--set {text}: the value is missing; write null where none is meant")
    try:
        return found[1], parse_value(found[2])
    except InputError as error:
        raise InputError(f"--set {text}: {error}") from None


def read_config(path: Path, keys: str) -> dict[str, Any]:
    """Return the mapping of `keys` in a YAML file. Raises InputError for what is not there, or is none."""
    try:
        raw = parse_yaml(path.read_text())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give the path of a YAML config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} must hold a mapping with {keys}")
    return raw
