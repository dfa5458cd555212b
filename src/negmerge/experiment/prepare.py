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
from negmerge.plug_in import file_of, short_name
from negmerge.requests.rows import Rows
from negmerge.requests.splits import Split, load_split, save_split
from negmerge.tasks.compute import Compute
from negmerge.tasks.image_classification.settings import source_names
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.task import Task


@dataclass(frozen=True)
class About:
    """What results say of a run's request and model: in words, the source, the model's family and its settings."""

    text: str
    source: str
    family: str
    settings: Mapping[str, Any]
    forgotten: tuple[str, ...] = ()  # the groups that are forgotten as a whole


@dataclass(frozen=True)
class Material:
    """What all seeds of a run share; `parts` are the rows of the split, by their numbers in the task's table.

    `inputs` are path, bytes and hash of every file that the run reads, and of its rows; `notes` say what should be
    known of how the rows were found.
    """

    task: Task
    split: Split
    parts: Mapping[str, Tensor]
    about: About
    device: str
    compute: Compute
    bytes: int
    inputs: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def prepare(place: RunDir, config: Config) -> Material:
    """Decode the rows and draw the split, or take both from the run directory.

    Raises InputError where the family's files are not those that the run was begun with.
    """
    preparing = preparing_of(config.model, config.task)
    store = preparing.open_store(place.private / "data")
    split_file = place.path / "split.json"
    files = [file_entry(path, shown) for shown, path in preparing.model_files(config.model).items()]
    if not (store.exists and split_file.exists()):
        loaded = preparing.load_data(config.data, config.model)
        save_split(split_file, loaded.split, loaded.source.train)
        loaded.write(store, model_files=files)
    facts = store.facts
    _check_same_files(facts.get("model_files", files), files, place)
    split = load_split(split_file)
    device = choose_device(config.device)
    compute = config.compute.on(device)
    task = preparing.make_task(config.data, config.model, compute, store, facts)
    parts = split.parts(len(store.table("train")))
    about = describe_request(config, split, task.rows())
    inputs = _inputs(config, files, facts)
    return Material(task, split, parts, about, device, compute, facts["bytes"], inputs, _notes(facts, split))


def load_unwritten(config: Config) -> Material:
    """Load the rows of a config into memory and draw the split; nothing is written. Raises InputError as loading does.

    The family's files are not hashed.
    """
    preparing = preparing_of(config.model, config.task)
    loaded = preparing.load_data(config.data, config.model)
    device = choose_device(config.device)
    compute = config.compute.on(device)
    task = preparing.make_task(config.data, config.model, compute, loaded.tables, loaded.described)
    parts = loaded.split.parts(len(loaded.source.train))
    about = describe_request(config, loaded.split, task.rows())
    described, split = loaded.described, loaded.split
    return Material(task, split, parts, about, device, compute, described["bytes"], notes=_notes(described, split))


def _notes(facts: Mapping[str, Any], split: Split) -> tuple[str, ...]:
    """Return what should be known of how rows were read and found, a line each."""
    return (*facts.get("notes", ()), *split.notes)


def _inputs(config: Config, files: Sequence[dict[str, Any]], facts: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the files that the config names, those of the family's model, and the hash of the decoded rows."""
    paths = [config.base.checkpoint, config.data.split, config.reference.checkpoint if config.reference else None]
    paths += [file_of(name) for name in _plug_ins(config)]
    paths += [config.base.previous / "record.json"] if config.base.previous else []
    named = [file_entry(path, str(path)) for path in paths if path is not None]
    kind = "texts" if config.task == "text-classification" else "images"
    rows = {"path": f"{kind}:{config.data.source}", "bytes": facts["bytes"], "hash": facts["fingerprint"]}
    return (*named, *files, rows)


def _plug_ins(config: Config) -> list[str]:
    methods = [method.name for method in config.methods]
    return [*source_names(config.data), *methods, *config.evaluation.scores]


def describe_request(config: Config, split: Split, rows: Rows) -> About:
    """Return what is said of the request and the model of a config whose split was drawn."""
    forgotten: tuple[str, ...] = ()
    rule, source = config.data.forget, _source_name(config.data.source, config.data.source_settings)
    text = f"forget {len(split.forget):,} rows of {source}"
    if split.kind == "class":
        forgotten = tuple(rows.groups[number] for number in rows.group_of[split.forget].unique().tolist())
        text = f"forget class {', '.join(forgotten)} of {source}"
    elif rule is not None and (rule.files or rule.rows):
        text = f"{text} that {(rule.files or rule.rows or Path()).name} lists"
    elif rule is not None and rule.where:
        asked = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in rule.where.items())
        text = f"{text} where {asked}"
    elif rule is not None and rule.source is not None:
        text = f"forget {_source_name(rule.source, rule.source_settings)}, keep {source}"
    return About(text, source, short_name(config.model.family), config.model.settings, forgotten)


def _source_name(source: str, settings: Mapping[str, Any]) -> str:
    """Return what a reader calls a source: the hub id, the name of the folder, or else the source's own name."""
    path = settings.get("path")
    path = path[-1] if isinstance(path, list) else path
    if path is None:
        return short_name(source)
    return str(path) if source == "hub" else Path(path).resolve().name


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
