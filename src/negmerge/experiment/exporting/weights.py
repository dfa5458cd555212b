"""The weights of a row in the form in which the base was given: a folder of transformers, or a file of its kind."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.config import Config, check_config
from negmerge.experiment.exporting.row import Row
from negmerge.experiment.prepare import choose_device
from negmerge.experiment.rundir import TASK, read_json
from negmerge.merging.output.base_card import Declared, declared_in
from negmerge.merging.output.beside import CARD, copy_beside, plan_beside
from negmerge.merging.output.model_config import CONFIG
from negmerge.tasks.ensemble import Ensemble
from negmerge.tasks.opening import preparing_of

TORCH = (".pt", ".pth", ".bin", ".ckpt")
# Where a model was loaded from: a folder of whoever made it.
PLACES = ("_name_or_path", "name_or_path")


def write_weights(row: Row, folder: Path) -> Declared:
    """Write the weights of a row, and what belongs to loading them, into a folder, in the base's own form.

    A family that has a form of its own writes it (a folder of transformers with config, tokenizer and processor, as the
    base's are); else it is one file, safetensors, or a PyTorch state dict where the base was one, with the names that
    the base's file has. The numbers and their dtype are those that were tested. Returns licence and language of the
    base.

    Raises InputError where the base's folder is gone, or the row has no such form.
    """
    if "model" in row.config:
        config = check_config(_of_this_version(row.config), str(row.run))
        family = preparing_of(config.model, config.task).family_of(config.model.family)
        if family.export is not None:
            return _write_form(row, config, family, folder)
    _write_file(row, folder)
    return {}


def _of_this_version(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as it is checked: what stands resolved in it is read again."""
    return {key: value for key, value in config.items() if value is not None}


def _write_form(row: Row, config: Config, family: Any, folder: Path) -> Declared:
    task = _task(row, config)
    model = task.open(row.weights, "cpu")
    if isinstance(model, Ensemble):
        raise InputError(
            f"the row {row.name} is an ensemble of {len(model.shards)} models, for which the base has no form; export "
            "another row with --method"
        )
    family.export(family.Settings(**config.model.settings), model, folder)
    files = preparing_of(config.model, config.task).model_files(config.model)
    base = next((file.parent for file in files.values() if file.name == CONFIG), None)
    declared = _copy_beside(base, folder) if base is not None else {}
    _forget_places(folder)
    return declared


def _task(row: Row, config: Config) -> Any:
    """Return the task of a run, whose rows are not needed and may have been removed."""
    preparing = preparing_of(config.model, config.task)
    store = preparing.open_store(row.run / "private" / "data")
    file = row.run / TASK
    if not store.exists and not file.is_file():
        raise InputError(f"{row.run} has no {TASK} of its task; run `negmerge run` with the same config again")
    facts = store.facts if store.exists else read_json(file)
    compute = config.compute.on(choose_device("cpu"))
    return preparing.make_task(config.data, config.model, compute, store, facts)


def _copy_beside(base: Path, folder: Path) -> Declared:
    """Copy what of the base's folder belongs to loading it: tokenizer, processor, templates, licences.

    Its config is not copied: that of the model has the number of outputs and the dtype that were written.
    """
    checkpoint = open_checkpoint(base)
    checkpoint.close()
    plan = plan_beside(base, checkpoint.files)
    names = tuple(name for name in plan.copied if name != CONFIG)
    copy_beside(type(plan)(plan.folder, names, plan.unmerged, plan.left_behind), folder)
    return declared_in(base / CARD)


def _forget_places(folder: Path) -> None:
    """Take out of configs where a model was loaded from, which names a folder that is nobody else's business."""
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        if isinstance(content, dict) and any(key in content for key in PLACES):
            kept = {key: value for key, value in content.items() if key not in PLACES}
            write_bytes_atomic(file, (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode())


def _write_file(row: Row, folder: Path) -> None:
    given = row.config["base"].get("checkpoint")
    place = None if given is None else Path(given)
    there = place is not None and place.is_file() and place.resolve() != row.base.resolve()
    ending = place.suffix if place is not None and place.suffix in TORCH else ".safetensors"
    prefix = _prefix(place, row.weights) if there and place is not None else ""
    target = folder / f"model{ending}"
    if ending == ".safetensors" and not prefix:
        shutil.copyfile(row.weights, target)  # the very bytes that the record of the run names
        return
    state = {prefix + name: value for name, value in read_state_dict(row.weights).items()}
    if ending == ".safetensors":
        write_state_dict(target, state)
    else:
        write_bytes_atomic(target, _pickled(state))


def _pickled(state: Mapping[str, Any]) -> bytes:
    """Return a state dict as torch.save writes one, the same bytes for the same tensors."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _prefix(base: Path, weights: Path) -> str:
    """Return what stands before every name in the base's file and not in the run's, such as `module.`; or ''."""
    names = []
    for path in (base, weights):
        checkpoint = open_checkpoint(path)
        names.append(checkpoint.names)
        checkpoint.close()
    theirs, ours = names
    if not theirs or not ours or not theirs[0].endswith(ours[0]):
        return ""
    prefix = theirs[0].removesuffix(ours[0])
    return prefix if {prefix + name for name in ours} == set(theirs) else ""
