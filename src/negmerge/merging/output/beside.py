"""What lies beside the weights in OUT: whatever of the base's folder belongs to loading the model, and nothing else."""

import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from negmerge.checkpoints import atomic_write, sync_folder, write_bytes_atomic
from negmerge.checkpoints.model_files import (
    ANCHORS,
    FOLDERS,
    LICENSES,
    TEXTS,
    WEIGHTS,
    is_foreign,
    is_license,
    is_loaded,
)
from negmerge.checkpoints.plain_file import open_plain, read_into
from negmerge.errors import InputError
from negmerge.merging.output.base_card import declared_in
from negmerge.merging.output.model_config import CONFIG, KeyPath, changed_config
from negmerge.merging.output.references import files_named, part_folders

CARD = "README.md"
LIMIT = 2**28  # bytes of a file beside the weights that are believed; tokenizers have some 2**25
DEPTH = 3  # of folders in which a tokenizer's is looked for
PIECE = 2**24
INDEX = ".index.json"
# How diffusers and open_clip call weights, and what their safetensors file is called; it is `model` for all others.
STEMS = {
    "diffusion_pytorch_model": "diffusion_pytorch_model",
    "open_clip_model": "open_clip_model",
    "open_clip_pytorch_model": "open_clip_model",
}


@dataclass(frozen=True)
class Beside:
    """What of the base's folder is copied into OUT; names are paths relative to `folder`, a folder's ends in a slash.

    `unmerged` are those copied files that are weights of further parts of the model. `rewritten` has the bytes of
    those that are not copied as they are. `declared` are licence and language as the base's model card has them.
    `stem` is what the file of the weights is called, without its ending, by the library that loads the model.
    """

    folder: Path
    copied: tuple[str, ...]
    unmerged: tuple[str, ...]
    left_behind: tuple[str, ...]
    rewritten: Mapping[str, bytes] = field(default_factory=dict)
    declared: Mapping[str, str | list[str]] = field(default_factory=dict)
    stem: str = "model"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a merge did not reach: weights of further parts."""
        return tuple(
            f"{self.folder / name} is copied from the base as it is: the weights of this part of the model do not merge"
            for name in self.unmerged
        )


def plan_beside(
    folder: Path, weights: Collection[Path], dtype: str | None = None, config: Mapping[KeyPath, Any] | None = None
) -> Beside:
    """Return what is to be copied beside the merged weights, before any of them is read.

    A file belongs to loading the model if a loader opens it by its name (configs, tokenizers, processors, templates,
    licences), if it is in a folder that one opens, or if a config or code that belongs names it. All else is left
    behind: weights in other formats, data, what a trainer writes, hidden files, and whatever is not known.
    `weights` are the files that merge; `dtype` is that of OUT's floats if it is not the base's; `config` are further
    changes to config.json.

    Raises InputError, naming the file, for one that belongs and cannot be read or is larger than is believed.
    """
    parts = part_folders(folder)
    names = _belonging(folder, parts)
    unmerged = [name for name in names if _in_any(name, parts) and name.endswith(WEIGHTS)]
    for name in names:
        _check_readable(folder / name, None if name in unmerged or name.startswith("language_model/") else LIMIT)
    rewritten = {}
    if CONFIG in names and (changed := changed_config(folder / CONFIG, dtype, config or {})) is not None:
        rewritten[CONFIG] = changed
    left = tuple(_shown(name) for name in _others(folder, names, _merged(folder, weights)))
    stem = next((STEMS[known] for known in STEMS if all(file.name.startswith(known) for file in weights)), "model")
    return Beside(folder, tuple(names), tuple(unmerged), left, rewritten, declared_in(folder / CARD), stem)


def copy_beside(plan: Beside, target: Path) -> None:
    """Write what a plan names into the folder of OUT.

    Raises InputError for a file that can no longer be read, NegmergeError where it cannot be written.
    """
    for name in plan.copied:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name in plan.rewritten:
            write_bytes_atomic(place, plan.rewritten[name])
        else:
            _copy(plan.folder / name, place)
    for name in sorted({str(PurePosixPath(name).parent) for name in plan.copied}):
        sync_folder(target / name)


def _belonging(folder: Path, parts: Collection[str]) -> list[str]:
    """Return the sorted names of all files that belong to loading the model."""
    found = dict.fromkeys(name for name in _files(folder) if is_loaded(name))
    for part in parts:
        found.update(dict.fromkeys(f"{part}/{name}" for name in _of_part(_files(folder / part))))
    for name, patterns in FOLDERS.items():
        if name != "language_model" or "alphabet.json" in found:
            found.update(dict.fromkeys(_matching(folder, name, patterns)))
    for place in _folders(folder):
        if place.lower() in LICENSES:
            found.update(dict.fromkeys(f"{place}/{n}" for n in _files(folder / place) if _is_text(n) or is_license(n)))
    for place in _tokenizers_folders(folder, "", DEPTH):
        own = [name for name in _files(folder / place) if is_loaded(name)]
        found.update(dict.fromkeys(f"{place}/{name}" for name in own))
        found.update(dict.fromkeys(_matching(folder, f"{place}/additional_chat_templates", ("*.jinja",))))
    waiting = list(found)
    for name in waiting:
        for named in files_named(folder, name):
            if named not in found and named != CARD and not named.endswith(INDEX):
                found[named] = None
                waiting.append(named)
    return sorted(found)


def _of_part(files: Collection[str]) -> list[str]:
    """Return what belongs to loading a part, of the files of its folder: its weights in one format, safetensors first.

    A part's config may have any name that ends in config.json, such as wordembedding_config.json.
    """
    own = [n for n in files if is_loaded(n) or (n.endswith("config.json") and not is_foreign(n))]
    saved = [n for n in files if n.endswith((".safetensors", f".safetensors{INDEX}")) and not n.startswith(".")]
    return own + (saved or [name for name in files if fnmatchcase(name, "pytorch_model*.bin")])


def _tokenizers_folders(folder: Path, within: str, depth: int) -> Iterator[str]:
    """Yield the folders of tokenizers and processors; a folder that holds weights is another model's, or a copy."""
    for name in _folders(folder / within):
        path = f"{within}/{name}" if within else name
        if is_foreign(path) or not os.access(folder / path, os.R_OK | os.X_OK):
            continue
        files = _files(folder / path)
        if any(file.endswith(WEIGHTS) and not is_loaded(file) for file in files):
            continue
        if any(anchor in files for anchor in ANCHORS):
            yield path
        if depth > 1:
            yield from _tokenizers_folders(folder, path, depth - 1)


def _matching(folder: Path, name: str, patterns: Collection[str]) -> list[str]:
    """Return the files of a folder in the model's folder that match, none where there is no such folder."""
    files = _files(folder / name) if (folder / name).is_dir() else []
    return [f"{name}/{file}" for file in files if any(fnmatchcase(file, pattern) for pattern in patterns)]


def _others(folder: Path, names: Collection[str], merged: Collection[str]) -> list[str]:
    """Return what of the folder is neither copied nor merged, hidden files last; a folder left whole stands as one."""
    kept = {*names, *merged}
    above = {str(parent) for name in kept for parent in PurePosixPath(name).parents}
    found = []
    waiting = [""]
    for within in waiting:
        for entry in _entries(folder / within):
            path = f"{within}/{entry.name}" if within else entry.name
            if path in above and _is_folder(entry):
                waiting.append(path)
            elif path not in kept:
                found.append(f"{path}/" if _is_folder(entry) else path)
    return sorted(found, key=lambda path: (path.startswith("."), path))


def _merged(folder: Path, weights: Collection[Path]) -> list[str]:
    """Return the names of the merged files, and of the index that lists them: OUT has its own."""
    names = [weight.name for weight in weights]
    indexes = [name for name in _files(folder) if name.endswith(INDEX)]
    listing = [name for name in indexes if all(_is_shard(weight, name.removesuffix(INDEX)) for weight in names)]
    return names + listing


def _is_shard(name: str, whole: str) -> bool:
    """Whether a file is a shard of what would be called `whole`: model-00001-of-00002.bin of model.bin."""
    place = PurePosixPath(whole)
    return name.startswith(place.stem) and name.endswith(place.suffix)


def _check_readable(path: Path, most: int | None) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the base loads with it: restore it, or take it away") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file, though the base loads with it; replace it by one")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: {os.strerror(errno.EACCES)}; the base loads with it: let it be read")
    if most is not None and status.st_size > most:
        raise InputError(f"{path} has {status.st_size:,} bytes, at most {most:,} are believed; is it the right file?")


def _copy(source: Path, target: Path) -> None:
    descriptor = open_plain(source)
    try:
        size = os.fstat(descriptor).st_size
        with atomic_write(target) as file:
            for start in range(0, size, PIECE):
                piece = bytearray(min(PIECE, size - start))
                read_into(descriptor, memoryview(piece), start, str(source))
                file.write(piece)
    finally:
        os.close(descriptor)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}; the base loads with what is in it: let it be read") from None


def _files(folder: Path) -> list[str]:
    """Return the sorted names of all that is no folder, such as links to nothing."""
    return [entry.name for entry in _entries(folder) if not _is_folder(entry)]


def _folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders; links to folders, which could lead in circles, are left out."""
    return [entry.name for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a name is that of a folder or a link to one; not for a link that leads to nothing, or to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _in_any(name: str, parts: Collection[str]) -> bool:
    return any(name.startswith(f"{part}/") for part in parts)


def _is_text(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in ("", *TEXTS)


def _shown(name: str) -> str:
    """Return a name as it can be printed: bytes that are no text, and control characters, become \ufffd."""
    text = os.fsencode(name).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
