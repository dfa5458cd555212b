"""Writing OUT: its weights with their record, and in a folder the files beside them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.checkpoints.pieces import hash_bytes, hash_pieces
from negmerge.checkpoints.writing import Layout
from negmerge.merging.output.beside import CARD, Beside
from negmerge.merging.output.card import model_card
from negmerge.merging.output.folder import made_folders, written_folder
from negmerge.merging.output.kept_recipe import IN_FOLDER
from negmerge.merging.output.record import Places, metadata
from negmerge.merging.output.weights import FilePlan, WeightsWriter, index_of, plan_shards, written_weights
from negmerge.merging.tally import Merged

Write = Callable[[WeightsWriter], Merged]


@dataclass(frozen=True)
class OutputPlan:
    """What OUT is to be: its tensors, the facts of its record; of a folder the bytes of a shard, and what is beside."""

    path: Path
    layout: Layout
    facts: dict[str, Any]
    places: Places
    most: int
    overwrite: bool
    beside: Beside | None = None
    recipe: bytes | None = None

    def card(self, **more: Any) -> str:
        """Return the model card, once the hashes of the inputs are known."""
        declared = self.beside.declared if self.beside is not None else {}
        return model_card(json.loads(self.places.filled(json.dumps(self.facts))), declared=declared, **more)


def write_file(plan: OutputPlan, write: Write) -> Merged:
    """Write OUT as one file: `write` merges into the weights it is given."""
    files = [FilePlan(plan.path, plan.layout)]
    texts, seal = metadata(plan.facts, files, None, plan.places)
    with made_folders(plan.path), written_weights(files, texts, seal, replace=plan.overwrite) as weights:
        return write(weights)


def write_folder(plan: OutputPlan, write: Write) -> Merged:
    """Write OUT as a folder: the files beside the weights first, then the weights, whose record has their hashes."""
    stem = plan.beside.stem if plan.beside is not None else "model"
    with written_folder(plan.path, plan.beside, plan.overwrite) as folder:
        if plan.recipe is not None:
            write_bytes_atomic(folder / IN_FOLDER, plan.recipe)
        files = plan_shards(folder, plan.layout, plan.most, stem)
        if len(files) > 1:
            write_bytes_atomic(folder / f"{stem}.safetensors.index.json", index_of(files))
        return write_weights(plan, folder, files, write)


def write_weights(
    plan: OutputPlan, folder: Path, files: list[FilePlan], write: Write, card: Mapping[str, Any] | None = None
) -> Merged:
    """Write the weights into a folder that has all else, and last the model card; `card` are its further facts."""

    def text() -> str:
        return plan.card(**(card or {}))

    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    beside = {name: hash_pieces(folder / name) for name in names}
    beside[CARD] = plan.places.new(lambda: hash_bytes(text().encode()))
    texts, seal = metadata(plan.facts, files, beside, plan.places)
    with written_weights(files, texts, seal) as weights:
        merged = write(weights)
    write_bytes_atomic(folder / CARD, text().encode())
    return merged
