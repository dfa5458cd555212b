"""Where a merged model goes: one file, or a folder with what belongs to loading the base beside the weights."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from negmerge.checkpoints import sync_folder
from negmerge.checkpoints.atomic import is_same, write_error
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.output.beside import Beside, copy_beside
from negmerge.merging.output.verifying import read_record
from negmerge.record.statement import kind_of, read_statement

# Endings of files that are longer than four letters; a dot with fewer behind it is an ending if a letter comes first.
LONG_ENDINGS = (
    ".safetensors", ".safetensor", ".msgpack", ".keras", ".pickle", ".joblib", ".parquet", ".arrow", ".jsonl",
    ".distcp", ".mlmodel", ".mlpackage", ".tflite", ".torchscript", ".onnx_data", ".7z",
)  # fmt: skip
ENDING = re.compile(r"\.(?!v\d)[a-z][a-z0-9]{0,3}")


def is_file_output(output: Path) -> bool:
    """Whether OUT is one file; anything else is a folder."""
    return output.suffix == ".safetensors"


def check_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError for an OUT that is an input or a file in one, or that exists and may not be replaced.

    Also for an OUT that has the ending of another kind of file, and NegmergeError where none can be made.
    """
    _check_name(output)
    _check_place(output)
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


def check_folder_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError as `check_output` does, and for an OUT that would be one file."""
    if is_file_output(output):
        raise InputError(f"OUT {output} is one file, an exported model is a folder; give {output.with_suffix('')}")
    check_output(output, inputs, overwrite)


def _real(path: Path) -> Path:
    """Return a path without links; unlike Path.resolve, also for a link that leads to itself."""
    return Path(os.path.realpath(path))


def is_exported(output: Path) -> bool:
    """Whether a folder is a model that `negmerge export` wrote, whole or changed since."""
    try:
        return output.is_dir() and kind_of(read_statement(output)) == "export"
    except InputError:
        return False


def _check_name(output: Path) -> None:
    """Raise InputError for an OUT that has no name of its own, or one that no file can have."""
    if output.name in ("", ".."):
        raise InputError(f"OUT {output} has no name of its own; give a path that ends in one")
    if len(os.fsencode(output.name)) > 240 or "\0" in str(output):
        raise InputError(f"OUT {str(output)!r:.80}… cannot be the name of a file; choose a shorter one")
    if not is_file_output(output) and _is_ending(output.suffix):
        stem = output
        while _is_ending(stem.suffix):
            stem = stem.with_suffix("")
        raise InputError(
            f"OUT {output} ends in {output.suffix}: OUT is one .safetensors file or a folder; "
            f"give {stem}.safetensors, or {stem} for a folder"
        )


def _is_ending(text: str) -> bool:
    """Whether a file's name may end so, rather than a folder's in a version: .pt and .7z, but not .2-1b, .5 or .v2."""
    return ENDING.fullmatch(text.lower()) is not None or text.lower() in LONG_ENDINGS


def _check_place(output: Path) -> None:
    """Raise NegmergeError where neither OUT nor the folders on the way to it can be made."""
    place = next(parent for parent in output.absolute().parents if os.path.lexists(parent))
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    if not place.is_dir():
        code = errno.ENOTDIR
    else:
        code = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
    raise NegmergeError(f"{output} cannot be written: {os.strerror(code)}; choose another place")


@contextmanager
def made_folders(output: Path) -> Iterator[None]:
    """Make the folders on the way to OUT; after an error those that were made here are removed, if nothing is in them.

    Raises NegmergeError where they cannot be made.
    """
    missing = [parent for parent in output.parents if not os.path.lexists(parent)]
    made: list[Path] = []
    try:
        try:
            for folder in reversed(missing):
                if not folder.is_dir():  # another process may have made it
                    folder.mkdir()
                    made.append(folder)
                    sync_folder(folder.parent)
        except OSError as error:
            raise NegmergeError(f"{output} cannot be written: {error.strerror}; choose another place") from None
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):
                folder.rmdir()
        raise


def _is_ours(output: Path) -> bool:
    if is_exported(output):
        return True
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
def written_folder(output: Path, beside: Beside | None, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into, which holds what is planned beside the weights.

    It lies beside OUT, locked, and is swapped in by renames. After an error it is removed; one that a killed process
    left is emptied and taken over. Raises NegmergeError where it cannot be made, or another process is writing OUT.
    """
    with made_folders(output), _locked_staging(output) as staging:
        try:
            check_output(output, [], overwrite)
            if beside is not None:
                copy_beside(beside, staging)
            yield staging
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
            staging.mkdir(exist_ok=True)
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
    return output.with_name(f".{output.name}.negmerge-old")  # no name that somebody else would give


def _remove(path: Path) -> None:
    """Remove a file, a folder, or a link and never what it points at; what is not there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
