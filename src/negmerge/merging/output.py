"""Where a merged model goes: one file, or a folder with what belongs to the base beside the weights."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from negmerge.checkpoints import sync_folder, write_bytes_atomic
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.record import read_record

CARD = "README.md"
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")


def is_file_output(output: Path) -> bool:
    """Whether OUT is one file; anything else is a folder."""
    return output.suffix == ".safetensors"


def check_output(output: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError for an OUT that is an input, or that exists and may not be replaced."""
    for path in inputs:
        if output.resolve() == path.resolve() or path.resolve().is_relative_to(output.resolve()):
            raise InputError(f"OUT {output} is the input {path}; choose another place")
    if not output.exists() and not output.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{output} exists; choose another OUT, or replace it with --overwrite")
    if not _is_ours(output):
        raise InputError(f"{output} was not written by negmerge, so --overwrite leaves it alone; choose another OUT")


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
    aside = _aside(output)
    if not aside.exists():
        return
    with _locked_staging(output) as staging:
        if output.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside.exists():
            aside.rename(output)
        shutil.rmtree(staging)


@contextmanager
def written_folder(output: Path, base: Path | None, card: str, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write the weights into; at the end the base's small files and a model card join them.

    It lies beside OUT, locked, and is swapped in by renames. After an error it is removed; one that a killed process
    left is emptied and taken over. Raises NegmergeError where it cannot be made, or another process is writing OUT.
    """
    with _locked_staging(output) as staging:
        try:
            check_output(output, [], overwrite)
            yield staging
            if base is not None:
                for file in sorted(base.iterdir()):
                    if _belongs_beside(file):
                        write_bytes_atomic(staging / file.name, file.read_bytes())
            write_bytes_atomic(staging / CARD, card.encode())
            sync_folder(staging)
            if output.exists():
                output.rename(_aside(output))
            staging.rename(output)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        sync_folder(output.parent)
        shutil.rmtree(_aside(output), ignore_errors=True)


@contextmanager
def _locked_staging(output: Path) -> Iterator[Path]:
    staging = output.with_name(f".{output.name}.partial")
    while True:
        try:
            staging.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # its owner has just renamed or removed it
            continue
        except OSError as error:
            raise NegmergeError(f"{output} cannot be written: {error.strerror}; choose another place") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise NegmergeError(f"{output} is being written by another process; wait for it to end") from None
        # Between opening and locking, the folder may have become OUT.
        if staging.exists() and staging.stat().st_ino == os.fstat(descriptor).st_ino:
            break
        os.close(descriptor)
    try:
        for left in staging.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield staging
    finally:
        os.close(descriptor)


def _aside(output: Path) -> Path:
    return output.with_name(f".{output.name}.old")


def _belongs_beside(file: Path) -> bool:
    """Whether a file of the base's folder is config, tokenizer or the like: neither weights nor their index or card."""
    name = file.name
    return (
        file.is_file()
        and not name.startswith(".")
        and name not in (CARD, "LICENSE.md")
        and not name.endswith((*WEIGHT_ENDINGS, ".index.json"))
    )
