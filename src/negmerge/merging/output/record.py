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
from negmerge.checkpoints.adapter import is_adapter, weights_in
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.errors import InputError
from negmerge.merging.merger import Merger
from negmerge.merging.output.base_card import Declared, front_matter
from negmerge.merging.pool import Pool

KEY = "negmerge"
TAGS = ["machine-unlearning", "task-arithmetic", "negmerge"]
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


def merge_facts(
    pool: Pool,
    merger: Merger,
    *,
    add: bool,
    alpha: float,
    include: Sequence[str],
    exclude: Sequence[str],
    hashed: bool,
) -> dict[str, Any]:
    """Return what a merge does with which inputs, as it stands in the record and on the card.

    Raises InputError where two inputs have the same hash: a copy of the base, or a member that would count twice.
    """
    facts: dict[str, Any] = {
        "method": merger.name,
        "settings": merger.settings,
        **({"seed": merger.seed} if merger.random else {}),
        "operation": "add" if add else "subtract",
        "alpha": alpha,
        "include": list(include),
        "exclude": list(exclude),
        "base": file_facts(pool.base, hashed),
        "members": [file_facts(member, hashed) for member in pool.members],
    }
    seen: dict[str, Path] = {}
    inputs = [(facts["base"], pool.base), *zip(facts["members"], pool.members, strict=True)]
    for entry, checkpoint in inputs:
        if "hash" in entry:
            first = seen.setdefault(entry["hash"], checkpoint.path)
            if first != checkpoint.path:
                raise InputError(f"{checkpoint.path} has the same content as {first}; leave one of them out")
    return facts


def metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the safetensors metadata with the record; `data` stands for the hash until it is known."""
    record = {"version": __version__, **facts, "data": PLACEHOLDER}
    return {"format": "pt", KEY: json.dumps(record, ensure_ascii=False)}


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a model that negmerge merged, or None for any other checkpoint."""
    checkpoint = _open(path)
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
    checkpoint = _open(path)
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


def _open(path: Path) -> Checkpoint:
    """Open a model, or the tensors of an adapter."""
    return open_checkpoint((is_adapter(path) and weights_in(path)) or path)


def model_card(
    facts: Mapping[str, Any], errors: Mapping[str, float] | None = None, declared: Declared | None = None
) -> str:
    """Return a README.md that says what was done with which inputs and, of an adapter, the error of each tensor.

    `declared` are licence and language of the base, which stay declared.
    """
    operation = "added to" if facts["operation"] == "add" else "subtracted from"
    chosen = {**facts["settings"], **({"seed": facts["seed"]} if "seed" in facts else {})}
    settings = ", ".join(f"{key} = {value}" for key, value in chosen.items()) or "none"
    inputs: Sequence[Mapping[str, Any]] = [facts["base"], *facts["members"]]
    rows = [
        f"| {f'member {i}' if i else 'base'} | `{item['name']}` | {item['bytes']:,} "
        f"| `{item.get('hash', 'not hashed')}` |"
        for i, item in enumerate(inputs)
    ]
    kind = "model" if errors is None else "adapter"
    return "\n".join(
        [
            front_matter(declared or {}, "transformers" if errors is None else "peft", TAGS),
            f"# A merged {kind}",
            "",
            f"The task vectors of {len(facts['members'])} fine-tuned {kind}s were merged by `{facts['method']}` "
            f"(settings: {settings}) and {operation} the base with α = {facts['alpha']:g}.",
            "",
            "| input | file | bytes | hash |",
            "|---|---|---|---|",
            *rows,
            "",
            *([] if errors is None else _error_lines(facts, errors)),
            f"Made by negmerge {__version__}. `negmerge verify` compares the weights with the hash in their metadata.",
            "",
        ]
    )


def _error_lines(facts: Mapping[str, Any], errors: Mapping[str, float]) -> list[str]:
    return [
        f"The change was factored to rank {facts['adapter_rank']}. What that leaves out, relative to the change in the "
        f"Frobenius norm: {100 * facts['adapter_error']:.2f} % in all.",
        "",
        "| tensor | left out |",
        "|---|---|",
        *(f"| `{name}` | {100 * error:.2f} % |" for name, error in errors.items()),
        "",
    ]
