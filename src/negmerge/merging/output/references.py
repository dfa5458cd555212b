"""Files that the configs and the code of a model name: a loader opens them though their own names do not say so."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from negmerge.checkpoints.model_files import is_foreign, is_tokenizers
from negmerge.checkpoints.plain_file import CONFIG_LIMIT, read_small
from negmerge.errors import InputError

MODULES = "modules.json"
ROUTERS = ("router_config.json", "config.json")
# Configs in which a key such as vocab_file names a file of the model. Not config.json: trainers keep their paths there.
NAMING = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json", "audio_tokenizer_config.json")
SPEAKERS = "speaker_embeddings_path.json"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, or None where there is none or it is not JSON."""
    if not path.is_file():
        return None
    try:
        return json.loads(read_small(path, CONFIG_LIMIT))
    except (ValueError, RecursionError):
        return None


def part_folders(folder: Path) -> list[str]:
    """Return the folders of the parts that a sentence-transformers model is made of, as modules.json names them.

    A part that routes to others (Router, formerly Asym) has theirs inside its own. Names whose folder is not there are
    left out: a part without settings has none. Raises InputError for one that does not lie in the model's folder.
    """
    modules = read_json(folder / MODULES)
    paths = [entry.get("path") for entry in modules if isinstance(entry, dict)] if isinstance(modules, list) else []
    found: dict[str, None] = {}
    waiting = ["", *(path for path in paths if isinstance(path, str))]
    for path in waiting:
        place = PurePosixPath(path)
        if place.is_absolute() or ".." in place.parts or "\0" in path:
            raise InputError(f"{folder / MODULES} names {path!r:.80}, which is not in that folder; mend the path")
        name = "" if place == PurePosixPath() else place.as_posix()
        if name in found or not (folder / name).is_dir():
            continue
        found[name] = None
        for router in ROUTERS:
            content = read_json(folder / name / router) if modules is not None else None
            if isinstance(content, dict) and isinstance(content.get("structure"), dict):
                waiting += [f"{path}/{part}" if path else part for part in _keys(content.get("types"))]
    return [name for name in found if name]


def files_named(folder: Path, name: str) -> Iterator[str]:
    """Yield the files that the config or code `name` of a model's folder names and that lie in the folder.

    Those are code (`auto_map`, `custom_pipelines`, the types of modules.json, imports), what a tokenizer's or
    processor's config has under keys such as `vocab_file`, and what code has as a text, such as "qwen.tiktoken".
    Weights, data and what a trainer writes are never among them.
    """
    place = PurePosixPath(name)
    if place.suffix == ".py":
        yield from _of_code(folder, place)
    elif place.suffix == ".json" and (place.name in NAMING or not is_tokenizers(place.name)):  # those may be large
        content = read_json(folder / place)
        yield from _of_config(folder, place, content)


def _of_config(folder: Path, place: PurePosixPath, content: Any) -> Iterator[str]:
    for key, value in _entries(content):
        if key in ("auto_map", "impl") or (place.name == MODULES and key == "type"):
            for reference in _texts(value):
                if "--" not in reference:  # code of another repository
                    yield from _module(folder, PurePosixPath(), reference.rpartition(".")[0])
        elif place.name in NAMING and key.endswith(("_file", "_files", "_path")) and not is_foreign(key):
            yield from _existing(folder, place.parent, _texts(value))
    if place.name == SPEAKERS:
        yield from _existing(folder, place.parent, _texts(content))


def _of_code(folder: Path, place: PurePosixPath) -> Iterator[str]:
    try:
        tree = ast.parse(read_small(folder / place, CONFIG_LIMIT))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(folder, place.parent, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = PurePosixPath(*place.parent.parts[: len(place.parent.parts) - max(0, node.level - 1)])
            yield from _module(folder, start, node.module or "")
            for alias in node.names:  # from . import other
                yield from _module(folder, start, f"{node.module}.{alias.name}" if node.module else alias.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 256:
            texts.append(node.value)
    yield from _existing(folder, place.parent, texts)


def _module(folder: Path, start: PurePosixPath, dotted: str) -> Iterator[str]:
    """Yield the files of a Python module that lies in the folder, with those of the packages around it."""
    words = dotted.split(".")
    if not all(word.isidentifier() for word in words):
        return
    for count in range(1, len(words) + 1):
        place = start.joinpath(*words[:count])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if (folder / file).is_file():
                yield file.as_posix()


def _existing(folder: Path, start: PurePosixPath, texts: list[str]) -> Iterator[str]:
    for text in texts:
        place = PurePosixPath(text)
        plain = text.isprintable() and 0 < len(text) < 256 and not place.is_absolute() and ".." not in place.parts
        if plain and place.suffix and not is_foreign(text) and (folder / start / place).is_file():
            yield (start / place).as_posix()


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys of a JSON value with their values, at any depth."""
    waiting = [content]
    for value in waiting:
        if isinstance(value, dict):
            yield from value.items()
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _texts(content: Any) -> list[str]:
    """Return all strings of a JSON value, at any depth, without keys."""
    found, waiting = [], [content]
    for value in waiting:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return found


def _keys(content: Any) -> list[str]:
    return list(content) if isinstance(content, dict) else []
