"""What a merged model says of itself: inputs, method, hash of its data; and the check of it."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge import __version__
from negmerge.checkpoints import Checkpoint, hash_file, open_checkpoint
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.errors import InputError

KEY = "negmerge"
PLACEHOLDER = "sha256-tree:" + "0" * 64


def file_facts(checkpoint: Checkpoint, hashed: bool) -> dict[str, Any]:
    """Return name (folder and file, not the whole path), size and, if asked for, hash of an input.

    The hash of several files is that of the lines `hash  name` of each.
    """
    resolved = checkpoint.path.resolve()
    facts: dict[str, Any] = {
        # A name may hold bytes that are no text, which no header can.
        "name": os.fsencode(f"{resolved.parent.name}/{resolved.name}").decode(errors="replace"),
        "bytes": sum(file.stat().st_size for file in checkpoint.files),
    }
    if not hashed:
        return facts
    hashes = [hash_file(file) for file in checkpoint.files]
    if len(hashes) == 1:
        return {**facts, "hash": hashes[0]}
    lines = "".join(f"{found}  {file.name}\n" for found, file in zip(hashes, checkpoint.files, strict=True))
    return {**facts, "hash": f"sha256-list:{hashlib.sha256(lines.encode()).hexdigest()}"}


def metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the safetensors metadata with the record; `data` stands for the hash until it is known."""
    record = {"version": __version__, **facts, "data": PLACEHOLDER}
    return {"format": "pt", KEY: json.dumps(record, ensure_ascii=False)}


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a model that negmerge merged, or None for any other checkpoint."""
    checkpoint = open_checkpoint(path)
    try:
        text = checkpoint.metadata.get(KEY)
    finally:
        checkpoint.close()
    if text is None:
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def verify_model(path: Path) -> int:
    """Compare the data of a merged model with the hashes in its record, and return how many hashes were compared.

    Raises InputError for a model without a record, and one whose data are not those that were written.
    """
    checkpoint = open_checkpoint(path)
    files = checkpoint.files
    checkpoint.close()
    for file in files:
        shown = path if len(files) == 1 else file
        record = read_record(file)
        if record is None or not re.fullmatch(r"sha256-tree:[0-9a-f]{64}", str(record.get("data"))):
            raise InputError(f"{shown} carries no record of negmerge; give a run directory or a merged model")
        opened = SafetensorsFile(file)
        opened.close()
        found = hash_file(file, opened.data_start)
        if found != record["data"]:
            raise InputError(f"{shown}: the data have hash {found}, the record says {record['data']}; it was changed")
    return len(files)


def model_card(facts: Mapping[str, Any]) -> str:
    """Return a README.md that says what was done with which inputs."""
    operation = "added to" if facts["operation"] == "add" else "subtracted from"
    chosen = {**facts["settings"], **({"seed": facts["seed"]} if "seed" in facts else {})}
    settings = ", ".join(f"{key} = {value}" for key, value in chosen.items()) or "none"
    inputs: Sequence[Mapping[str, Any]] = [facts["base"], *facts["members"]]
    rows = [
        f"| {f'member {i}' if i else 'base'} | `{item['name']}` | {item['bytes']:,} "
        f"| `{item.get('hash', 'not hashed')}` |"
        for i, item in enumerate(inputs)
    ]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "tags: [machine-unlearning, task-arithmetic, negmerge]",
            "---",
            "",
            "# A merged model",
            "",
            f"The task vectors of {len(facts['members'])} fine-tuned models were merged by `{facts['method']}` "
            f"(settings: {settings}) and {operation} the base with α = {facts['alpha']:g}.",
            "",
            "| input | file | bytes | hash |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Made by negmerge {__version__}. `negmerge verify` compares the weights with the hash in their metadata.",
            "",
        ]
    )
