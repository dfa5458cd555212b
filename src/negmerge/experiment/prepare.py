"""The data stage: rows decoded once, the split drawn once, the task made for both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.experiment.config import Config
from negmerge.experiment.inputs import DATA, FREE, REFERENCE, Inputs, data_files, named_files, refuse
from negmerge.experiment.keys import state_of
from negmerge.experiment.projection_rows import check_files, check_listed
from negmerge.experiment.renewing import check_identity
from negmerge.experiment.rundir import TASK, RunDir, write_json
from negmerge.plug_in import short_name
from negmerge.requests.rows import Rows
from negmerge.requests.splits import Split, load_split, save_split
from negmerge.tasks.compute import Compute
from negmerge.tasks.opening import preparing_of
from negmerge.tasks.settings import DataConfig
from negmerge.tasks.task import FurtherParts, Task
from negmerge.tasks.text_classification.tables import DISTINCT, REQUESTED

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class About:
    """What results say of a run's request and model: in words, the source, the model's family and its settings."""

    text: str
    source: str
    family: str
    settings: Mapping[str, Any]
    forgotten: tuple[str, ...] = ()  # the groups that are forgotten as a whole
    may_know: bool = False  # the base was given, and the test rows were drawn from what it may have been trained on


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


def prepare(place: RunDir, config: Config, hardest: Callable[[RunDir, Config], DataConfig] | None = None) -> Material:
    """Decode the rows and draw the split, or take both from the run directory.

    `hardest` returns the data part with the rows named, where the request asks for the most memorised ones.

    Every file that is read is hashed, and must not change meanwhile. Raises InputError where the rows are not those
    that the run was begun with.
    """
    check_files(config)
    preparing = preparing_of(config.model, config.task)
    store = preparing.open_store(place.private / "data")
    split_file = place.path / "split.json"
    inputs = Inputs(place.path)
    if not (store.exists and split_file.exists() and inputs.entries):
        files = [*named_files(config), *data_files(config)]
        states = [state_of(file.path) for file in files]
        data = config.data if hardest is None else hardest(place, config)
        loaded = preparing.load_data(data, config.model)
        entries = [file.entry() for file in files]
        for file, state, entry in zip(files, states, entries, strict=True):
            if entry["state"] != state:
                raise InputError(f"{file.path} changed while it was read; try again when nothing writes to it")
        if split_file.exists() and load_split(split_file).source != loaded.split.source:
            raise InputError(f"{place.path} was begun with other rows than the data now hold; begin anew with --fresh")
        inputs.write(entries)
        save_split(split_file, loaded.split, loaded.source.train)
        loaded.write(store)
    else:
        _take_new_files(inputs, config)
    facts = store.facts
    write_json(place.path / TASK, facts)
    split = load_split(split_file)
    device = choose_device(config.device)
    compute = config.compute.on(device)
    task = preparing.make_task(config.data, config.model, compute, store, facts)
    parts = _parts(split, len(store.table("train")), task)
    check_listed(config, task, split, parts)
    about = describe_request(config, split, task.rows(), facts)
    rows = {"path": f"{task.NOUN}s:{config.data.source}", "bytes": facts["bytes"], "hash": facts["fingerprint"]}
    kept = ("role", "path", "bytes", "hash", "sha256")
    named = [{k: entry[k] for k in kept if k in entry} for entry in inputs.entries if entry["role"] != DATA]
    notes = _notes(facts, split)
    return Material(task, split, parts, about, device, compute, facts["bytes"], (*named, rows), notes)


def check_inputs(place: RunDir, config: Config) -> None:
    """Compare the files that a config names with those that the run was begun with.

    Where the base is not there yet, nothing hangs on them, and what was begun is removed. Raises InputError that names
    what changed; a file that is gone, or a folder, is no change, for the run has what it read.
    """
    inputs = Inputs(place.path)
    if not inputs.entries:
        return
    try:
        now = [*named_files(config), *data_files(config)]
    except InputError:  # the data are gone, or no longer what they were
        now = named_files(config)
    now = [file for file in now if file.path.is_file()]
    found = inputs.differences(now)
    if not place.has("reference/model.safetensors"):
        found = [one for one in found if one[0] != REFERENCE]
    if found and place.has("base/model.safetensors"):
        refuse(place.path, found)
    if found:
        place.clear()
        check_identity(place, config)


def _take_new_files(inputs: Inputs, config: Config) -> None:
    """Add to the inputs of a run the files that a changed config names for the first time, or under a free role."""
    named = [file for file in named_files(config) if file.role in (REFERENCE, FREE)]
    kept = [entry for entry in inputs.entries if entry["role"] not in (REFERENCE, FREE)]
    known = {(entry["role"], entry["path"]): entry for entry in inputs.entries}
    entries = [*kept, *(file.entry(known.get((file.role, file.shown))) for file in named)]
    if entries != inputs.entries:
        inputs.write(entries)


def load_unwritten(config: Config) -> Material:
    """Load the rows of a config into memory and draw the split; nothing is written. Raises InputError as loading does.

    The family's files are not hashed.
    """
    check_files(config)
    preparing = preparing_of(config.model, config.task)
    loaded = preparing.load_data(config.data, config.model)
    device = choose_device(config.device)
    compute = config.compute.on(device)
    task = preparing.make_task(config.data, config.model, compute, loaded.tables, loaded.described)
    parts = _parts(loaded.split, len(loaded.source.train), task)
    check_listed(config, task, loaded.split, parts)
    about = describe_request(config, loaded.split, task.rows(), loaded.described)
    described, split = loaded.described, loaded.split
    return Material(task, split, parts, about, device, compute, described["bytes"], notes=_notes(described, split))


def _parts(split: Split, behind: int, task: Task) -> dict[str, Tensor]:
    """Return the rows of the split, and those of further parts of the task, by their numbers in its table."""
    return {**split.parts(behind), **(task.further_parts() if isinstance(task, FurtherParts) else {})}


def _notes(facts: Mapping[str, Any], split: Split) -> tuple[str, ...]:
    """Return what should be known of how rows were read and found, a line each."""
    return (*facts.get("notes", ()), *split.notes)


def describe_request(config: Config, split: Split, rows: Rows, facts: Mapping[str, Any] = NOTHING) -> About:
    """Return what is said of the request and the model of a config whose split was drawn, of rows with these facts."""
    forgotten: tuple[str, ...] = ()
    rule, source = config.data.forget, _source_name(config.data.source, config.data.source_settings)
    text = f"forget {len(split.forget):,} rows of {source}"
    if split.kind == "class":
        forgotten = tuple(rows.groups[number] for number in rows.group_of[split.forget].unique().tolist())
        text = f"forget class {', '.join(forgotten)} of {source}"
    elif rule is not None and rule.hardest:
        text = f"forget the {len(split.forget):,} most memorised rows of {source}"
    elif rule is not None and (rule.files or rule.rows):
        text = f"{text} that {(rule.files or rule.rows or Path()).name} lists"
    elif rule is not None and _asked(config.data):
        text = f"forget {len(split.forget):,} rows of {_asked(config.data)}, keep {source}"
    elif rule is not None and rule.where:
        asked = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in rule.where.items())
        text = f"{text} where {asked}"
    elif rule is not None and rule.source is not None:
        text = f"forget {_source_name(rule.source, rule.source_settings)}, keep {source}"
    may_know = bool(facts.get("drawn")) and config.base.train is None
    return About(text, source, short_name(config.model.family), config.model.settings, forgotten, may_know)


def _asked(data: DataConfig) -> str:
    """Return the name of the file whose rows are asked for: of its own setting, or the first of several; or nothing."""
    settings = data.source_settings
    first = settings.get("path") if settings.get(DISTINCT) else None
    found = settings.get(REQUESTED) or (first[0] if isinstance(first, list) and first else None)
    return "" if found is None else Path(found).name


def _source_name(source: str, settings: Mapping[str, Any]) -> str:
    """Return what a reader calls a source: the hub id, the name of the folder, or else the source's own name."""
    path = settings.get("path")
    path = path[-1] if isinstance(path, list) else path
    if path is None:
        return short_name(source)
    return str(path) if source == "hub" else Path(path).resolve().name


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
