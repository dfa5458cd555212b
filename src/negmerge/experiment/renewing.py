"""What a changed config makes stale: a run's identity may not change, of its rows only what hangs on it is redone."""

import difflib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from negmerge.checkpoints import hash_file
from negmerge.errors import InputError, listing
from negmerge.experiment.config import MethodConfig, RunConfig
from negmerge.experiment.keys import Keys, digest
from negmerge.experiment.methods import describe, files_of
from negmerge.experiment.rundir import RunDir
from negmerge.parsing import dump_yaml
from negmerge.plug_in import file_of
from negmerge.unlearning.context import CHOSEN

IDENTITY = "identity"
OF_A_RUN = ("task", "data", "model", "inputs", "compute", "device", "seeds", "base", "reference")
CHOOSING = (
    "floor",
    "search",
    "step",
    "max_alpha",
    "gone",
)  # of selection: what is chosen among points, not what they are
CURVES = ("*.curve.json", "*.lasting.json", "*.seconds.json", "oracle*.json", "candidate.json")


def identity_of(config: RunConfig) -> dict[str, Any]:
    """Return the parts of a config on which base, reference and rows hang, as plain JSON values."""
    resolved = config.resolved()
    return {name: resolved[name] for name in OF_A_RUN if name in resolved}


def check_identity(place: RunDir, config: RunConfig) -> None:
    """Make the run's folder ready for a config.

    Where nothing is trained yet, what was begun for another config is removed: a failed first run does not block its
    own correction. A reference may be added, or left out, at any time, and seeds may be added to several. Raises
    InputError that shows any other difference from what base, reference and rows of the run were made of, and for a
    folder with other content.
    """
    keys, asked = Keys(place.path), identity_of(config)
    there = keys.get(IDENTITY)
    if there is None:
        place.check_empty()
        keys.put(IDENTITY, asked)
        return
    before, after = dict(there), dict(asked)
    if None in (before["reference"], after["reference"]) or not place.has("reference/model.safetensors"):
        before["reference"] = after["reference"]
    few = min(len(before["seeds"]), len(after["seeds"]))
    if few > 1 and before["seeds"][0] == after["seeds"][0]:
        before["seeds"] = after["seeds"]
    if before == after:
        keys.put(IDENTITY, {**asked, "reference": asked["reference"] or there["reference"]})
    elif place.has_trained:
        differing = [key for key in after if before.get(key) != after[key]]
        ours, theirs = (dump_yaml({key: side.get(key) for key in differing}).splitlines() for side in (before, after))
        lines = difflib.unified_diff(ours, theirs, n=0, lineterm="")
        raise InputError(
            listing(
                f"{place.path} holds a run of another config; give another directory with -o, the same config, or "
                "begin anew with --fresh. It has (-), asked is (+):",
                [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")],
            )
        )
    else:
        place.clear()
        Keys(place.path).put(IDENTITY, asked)


def results_key(config: RunConfig) -> str:
    """Return the key of a run's results: everything of its config but how the work is shared out."""
    return digest({k: v for k, v in config.resolved().items() if k not in ("workers", "threads")})


def method_parts(
    config: RunConfig,
    method: MethodConfig,
    ground: Mapping[str, Any],
    members: Mapping[str, str],
    reference: str | None,
    earlier: Any,
) -> dict[str, Any]:
    """Return what a row hangs on: how its model or vector is `made`, how points are `judged`, how one is `chosen`.

    `ground` is what all rows hang on (base, rows, seed), `members` are the hashes of the pool, `reference` that of the
    reference, `earlier` the record of the search on the first seed.
    """
    info, file, read = describe(method.name), file_of(method.name), files_of(method.name, method.settings)
    selection = config.selection.model_dump(mode="json")
    policy = config.buffers_of(method)
    buffers = policy if isinstance(policy, str) else policy.model_dump(mode="json")
    scratch = config.scratch_settings() if info.scratch else None
    rows = method.projected.rows if method.projected and isinstance(method.projected.rows, Path) else None
    matched = config.selection.objective != "retain-floor" or info.exact
    return {
        "made": digest(
            {
                "method": method.name if file is None else digest(file.read_text()),
                "settings": method.model_dump(mode="json", exclude=_unmade(method)),
                "projection": None if rows is None else hash_file(rows),
                **({"files": [hash_file(path) for path in read]} if read else {}),
                "buffers": buffers == "negate",
                "ground": dict(ground),
                "members": dict(members) if "pool" in info.needs or info.kind != "train" else None,
                "augment": config.base.train.augment if config.base.train else "none",
                "scratch": scratch.model_dump(mode="json") if scratch is not None else None,
                "earlier": None if earlier is None else [earlier["index"], earlier["winner"]],
            }
        ),
        "judged": digest(
            {
                "selection": {k: v for k, v in selection.items() if k not in CHOOSING and v != {}},
                "buffers": buffers,
                "reference": reference if matched else None,
            }
        ),
        "chosen": {k: selection[k] for k in CHOOSING if k in selection},
    }


def _unmade(method: MethodConfig) -> set[str]:
    """Return the keys of a row by which nothing is made; patterns that are not given are among them."""
    empty = {key for key in ("include", "exclude") if not getattr(method, key)}
    return {"buffers", "label", "seeds", "name", *empty}


def renew(place: RunDir, row: str, parts: Mapping[str, Any], folder: Path, result: Path | None) -> None:
    """Remove of a row what does not hang on `parts`: everything, what was measured, or only what was chosen.

    `folder` is the row's private folder, `result` that of its model. What is removed is told as the event `renewed`.
    """
    keys, name = Keys(place.path), f"method {row}"
    known = keys.get(name)
    if known == parts:
        return
    if known is not None:
        changed = next(key for key in parts if known.get(key) != parts[key])
        if folder.exists() or (result is not None and result.exists()):
            place.emit("renewed", stage=name, because=changed)
        if changed == "made":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            shutil.rmtree(folder / CHOSEN, ignore_errors=True)
        if changed == "judged":
            for pattern in CURVES:
                for file in folder.rglob(pattern):
                    file.unlink()
        if result is not None:
            keys.forget(result / "model.safetensors")
            shutil.rmtree(result, ignore_errors=True)
    keys.put(name, dict(parts))
