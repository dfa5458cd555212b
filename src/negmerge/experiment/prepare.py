"""The data stage: rows decoded once, the split drawn once, the task made for both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.experiment.config import Config
from negmerge.experiment.record import file_entry
from negmerge.experiment.rundir import RunDir
from negmerge.requests.splits import Split, load_split, save_split
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification.preparing import model_files
from negmerge.tasks.image_classification.store import Store
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.task import Task


@dataclass(frozen=True)
class Material:
    """What all seeds of a run share; `parts` are the rows of the split, by their numbers in the task's table."""

    task: Task
    split: Split
    parts: Mapping[str, Tensor]
    device: str
    compute: Compute
    bytes: int
    model_files: tuple[dict[str, Any], ...] = ()  # path, bytes and hash of each that the family reads


def prepare(place: RunDir, config: Config) -> Material:
    """Decode the rows and draw the split, or take both from the run directory.

    Raises InputError where the family's files are not those that the run was begun with.
    """
    store = Store(place.private / "data")
    split_file = place.path / "split.json"
    files = [file_entry(path, shown) for shown, path in model_files(config.model).items()]
    preparing = preparing_of(config.model)
    if not (store.exists and split_file.exists()):
        loaded = preparing.load_data(config.data, config.model)
        save_split(split_file, loaded.split)
        loaded.write(store, model_files=files)
    facts = store.facts
    _check_same_files(facts.get("model_files", files), files, place)
    split = load_split(split_file)
    device = choose_device(config.device)
    compute = config.compute.on(device)
    return Material(
        task=preparing.make_task(config.data, config.model, compute, store, facts),
        split=split,
        parts=split.parts(len(store.table("train"))),
        device=device,
        compute=compute,
        bytes=facts["bytes"],
        model_files=tuple(files),
    )


def load_unwritten(config: Config) -> Material:
    """Load the rows of a config into memory and draw the split; nothing is written. Raises InputError as loading does.

    The family's files are not hashed.
    """
    preparing = preparing_of(config.model)
    loaded = preparing.load_data(config.data, config.model)
    device = choose_device(config.device)
    compute = config.compute.on(device)
    task = preparing.make_task(config.data, config.model, compute, loaded.tables, loaded.described)
    parts = loaded.split.parts(len(loaded.source.train))
    return Material(task, loaded.split, parts, device, compute, loaded.described["bytes"])


def _check_same_files(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], place: RunDir) -> None:
    """Raise InputError unless the files are the same by name and content; a model of the hub may have a new commit."""
    ours, theirs = ({Path(file["path"]).name: file for file in files} for files in (before, now))
    changed = [n for n in {**ours, **theirs} if ours.get(n, {}).get("hash") != theirs.get(n, {}).get("hash")]
    if changed:
        first = ours.get(changed[0]) or theirs[changed[0]]
        raise InputError(
            f"{place.path} was begun with another model: {', '.join(changed)} in {Path(first['path']).parent} changed "
            "since; put back what was there, or give another directory with -o"
        )


def choose_device(wanted: str) -> str:
    """Return the device to use: for auto, cuda where there is one, then mps, then cpu.

    Raises InputError for a device that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, available in there.items() if available)
    if not there[wanted]:
        raise InputError(f"device: {wanted} is not available on this machine; use auto or cpu")
    return wanted
