"""Where a merged model goes: one file, or a folder with what belongs to the base beside the weights."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from negmerge.checkpoints import sync_folder, write_bytes_atomic
from negmerge.checkpoints.atomic import is_same, write_error
from negmerge.checkpoints.plain_file import read_small
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.output.record import read_record

CARD = "README.md"
CONFIG = "config.json"
# What belongs to a model beside its weights: configs, tokenizers, templates, code of its own, its licence.
BESIDE = (".json", ".txt", ".model", ".jinja", ".py", ".tiktoken", ".spm", ".vocab", ".bpe")
LICENSES = ("LICENSE", "NOTICE")
BESIDE_LIMIT = 2**28  # bytes; tokenizers have some 2**25


def is_file_output(output: Path) -> bool:
    """Whether OUT is one file; anything else is a folder."""
    return output.suffix == ".safetensors"


def check_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError for an OUT that is an input or a file in one, or that exists and may not be replaced."""
    _check_name(output)
    target = _real(output)
    for path in inputs:
        place = _real(path)
        inside = is_file_output(output) and _real(output.parent) == place
        if inside or place.is_relative_to(target):
            raise InputError(f"OUT {output} is {'in ' if inside else ''}the input {path}; choose another place")
    if not os.path.lexists(output):
        return
    if not overwrite:
        raise InputError(f"{output} exists; choose another OUT, or replace it with --overwrite")
    if not _is_ours(output):
        raise InputError(f"{output} was not written by negmerge, so --overwrite leaves it alone; choose another OUT")


def _real(path: Path) -> Path:
    """Return a path without links; unlike Path.resolve, also for a link that leads to itself."""
    return Path(os.path.realpath(path))


def _check_name(output: Path) -> None:
    """Raise InputError for an OUT that has no name of its own, or one that no file can have."""
    if output.name in ("", ".."):
        raise InputError(f"OUT {output} has no name of its own; give a path that ends in one")
    if len(os.fsencode(output.name)) > 240 or "\0" in str(output):
        raise InputError(f"OUT {str(output)!r:.80}… cannot be the name of a file; choose a shorter one")


def _is_ours(output: Path) -> bool:
    if output.is_dir() == is_file_output(output):
        return False
    try:
        return read_record(output) is not None
    except InputError:
        return False


def recover_folder(output: Path) -> None:
    """Finish what a killed swap of folders left: the old folder comes back, or goes for good.

    Raises NegmergeError while another process is writing OUT.
    """
    _check_name(output)
    aside = _aside(output)
    if not os.path.lexists(aside):
        return
    with _locked_staging(output) as staging:
        if os.path.lexists(output):
            _remove(aside)
        elif os.path.lexists(aside):
            aside.rename(output)
        _remove(staging)


@contextmanager
def written_folder(
    output: Path,
    base: Path | None,
    card: str,
    overwrite: bool,
    config_changes: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Path]:
    """Give a folder to write the weights into; at the end the base's small files and a model card join them.

    `config_changes` are keys that config.json gets other values of, nested as they are there.

    It lies beside OUT, locked, and is swapped in by renames. After an error it is removed; one that a killed process
    left is emptied and taken over. Raises NegmergeError where it cannot be made, or another process is writing OUT.
    """
    with _locked_staging(output) as staging:
        try:
            check_output(output, [], overwrite)
            yield staging
            for file in sorted(base.iterdir()) if base is not None else ():
                if _belongs_beside(file):
                    data = read_small(file, BESIDE_LIMIT)
                    if file.name == CONFIG and config_changes:
                        data = changed_config(data, config_changes)
                    write_bytes_atomic(staging / file.name, data)
            write_bytes_atomic(staging / CARD, card.encode())
            sync_folder(staging)
            if os.path.lexists(output):
                _remove(_aside(output))
                output.rename(_aside(output))
            staging.rename(output)
        except BaseException as error:
            _remove(staging)
            raise write_error(error, output) from None
        sync_folder(output.parent)
        _remove(_aside(output))


@contextmanager
def _locked_staging(output: Path) -> Iterator[Path]:
    staging = output.with_name(f".{output.name}.partial")
    while True:
        try:
            staging.mkdir(parents=True, exist_ok=True)
            descriptor = _opened(staging)
        except OSError as error:
            raise NegmergeError(f"{output} cannot be written: {error.strerror}; choose another place") from None
        if descriptor is None:  # its owner has just renamed or removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise NegmergeError(f"{output} is being written by another process; wait for it to end") from None
        # Between opening and locking, the folder may have become OUT.
        if is_same(staging, descriptor):
            break
        os.close(descriptor)
    try:
        for left in staging.iterdir():
            _remove(left)
        yield staging
    finally:
        os.close(descriptor)


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def _aside(output: Path) -> Path:
    return output.with_name(f".{output.name}.old")


def _remove(path: Path) -> None:
    """Remove a file, a folder, or a link and never what it points at; what is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def changed_config(data: bytes, changes: Mapping[str, Any]) -> bytes:
    """Return a config.json with some keys changed, nested as they are there; bytes that are no JSON object as they are.

    >>> json.loads(changed_config(b'{"a": 1, "b": {"c": true}}', {"b": {"c": False}}))
    {'a': 1, 'b': {'c': False}}
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(content, dict):
        return data
    _change(content, changes)
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _change(content: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), dict):
            _change(content[key], value)
        else:
            content[key] = value


def _belongs_beside(file: Path) -> bool:
    """Whether a file of the base's folder is config, tokenizer or the like: neither weights nor their index or card."""
    name = file.name
    return (
        file.is_file()
        and not name.startswith(".")
        and name != CARD
        and not name.endswith(".index.json")
        and (name.endswith(BESIDE) or name.startswith(LICENSES))
    )
