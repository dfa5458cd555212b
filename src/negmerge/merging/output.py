"""Where a merged model goes: one file, or a folder with what belongs to the base beside the weights."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from negmerge.checkpoints import sync_folder
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.record import read_record

WEIGHTS = "model.safetensors"
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
    """Finish what a killed swap of folders left: the old folder comes back, or goes for good."""
    aside = _aside(output)
    if aside.exists():
        if output.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(output)


def write_folder(output: Path, base: Path, card: str, write_weights: Callable[[Path], None]) -> None:
    """Write a folder beside OUT, then swap it in by renames: weights, the base's small files, a model card.

    Raises NegmergeError where the folder cannot be made.
    """
    staging = output.with_name(f".{output.name}.partial")
    if staging.exists():
        shutil.rmtree(staging)
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise NegmergeError(f"{output} cannot be written: {error.strerror}; choose another place") from None
    try:
        write_weights(staging / WEIGHTS)
        if base.is_dir():
            for file in sorted(base.iterdir()):
                if _belongs_beside(file):
                    shutil.copyfile(file, staging / file.name)
        (staging / CARD).write_text(card)
        sync_folder(staging)
        if output.exists():
            output.rename(_aside(output))
        staging.rename(output)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_folder(output.parent)
    shutil.rmtree(_aside(output), ignore_errors=True)


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
