"""The retain projection in a run: moments taken once for each choice of rows, vectors projected for every strength."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import hash_file
from negmerge.errors import InputError
from negmerge.experiment.projection_config import ProjectionConfig
from negmerge.experiment.projection_rows import listed_rows
from negmerge.experiment.rundir import read_json, write_json
from negmerge.experiment.trainer import Trainer
from negmerge.projection import MomentRows, Moments, Projection, is_current, project_vector, write_moments
from negmerge.seeding import derive_seed
from negmerge.unlearning.context import Projecting

OTHER_ROWS = "other rows"
BATCH = 50  # rows in a pass: fixed, as the order of sums hangs on it


@dataclass(frozen=True)
class Projector:
    """Takes the moments of one seed's base and projects vectors by them."""

    trainer: Trainer

    def projecting(self, config: ProjectionConfig) -> Projecting:
        """Return how a method's vectors are projected; the moments are there then."""
        file = self.moments(config)
        return Projecting(tuple(config.strength), partial(_project, file, self._need(config)), moments_seconds(file))

    def moments(self, config: ProjectionConfig) -> Path:
        """Return the file of moments for a choice of rows; it is made unless it is there."""
        trainer, rows = self.trainer, self.rows(config)
        about = {"forget": f"forget {trainer.material.task.NOUN}s", "retain": self._about(config)}
        digest = sha256()
        digest.update(trainer.material.task.rows().fingerprint().encode())
        for part in ("forget", "retain"):
            digest.update(rows[part].numpy().tobytes() + part.encode())
        key = {"model": hash_file(trainer.base), "drawn": digest.hexdigest()}
        file = trainer.place.private / "moments" / f"{digest.hexdigest()[:16]}.safetensors"
        if not is_current(file, key) or not _has_seconds(file):  # a kill may have left the one without the other
            with trainer.place.stage("moments"):
                self._write(file, rows, about, key)
        return file

    def _write(self, file: Path, rows: Mapping[str, Tensor], about: Mapping[str, str], key: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        task, device = self.trainer.material.task, self.trainer.material.device

        def batches(part: str) -> Iterator[Any]:
            return (task.batch(piece, device) for piece in rows[part].split(BATCH))

        forget, retain = (
            MomentRows(partial(batches, part), len(rows[part]), about[part]) for part in ("forget", "retain")
        )
        model = task.open(self.trainer.base, device)
        first = task.batch(rows["forget"][:1], device)
        write_moments(
            file, model, forget, retain, task.run_model, first, key, real=task.real_tokens, tell=self.trainer.place.emit
        )
        write_json(_beside(file), {"seconds": time.perf_counter() - started})

    def rows(self, config: ProjectionConfig) -> dict[str, Tensor]:
        """Return the rows whose moments are taken: of the request, and of what is protected, each a fixed sample.

        Raises InputError as `listed_rows` does, and for a part without rows.
        """
        parts, seed = self.trainer.material.parts, self.trainer.seed
        if isinstance(config.rows, Path):
            kept = listed_rows(config.rows, self.trainer.material.task, self.trainer.material.split, parts)
        else:
            kept = parts["projection"] if len(parts.get("projection", ())) else parts[config.rows]
        if not len(kept):
            raise InputError(f"projection: there are no {config.rows} rows; give rows: FILE, or leave projection out")

        def sample(rows: Tensor, part: str) -> Tensor:
            generator = torch.Generator().manual_seed(derive_seed(seed, "projection", part))
            return rows[torch.randperm(len(rows), generator=generator)[: config.samples].sort().values]

        return {"forget": sample(parts["forget"], "forget"), "retain": sample(kept, "retain")}

    def _need(self, config: ProjectionConfig) -> str:
        """Return the data that it reads, as the result table says it."""
        own = isinstance(config.rows, Path) or len(self.trainer.material.parts.get("projection", ()))
        return OTHER_ROWS if own else str(config.rows)

    def _about(self, config: ProjectionConfig) -> str:
        noun = self.trainer.material.task.NOUN
        if isinstance(config.rows, Path):
            return f"{noun}s listed in {config.rows.name}"
        if len(self.trainer.material.parts.get("projection", ())):
            return f"{noun}s given for the projection"
        return f"{config.rows} {noun}s"


def _project(file: Path, need: str, vector: Path, target: Path, strength: float) -> dict[str, Any]:
    with Moments(file) as moments:
        return {**project_vector(Projection(moments, strength), vector, target).as_json(), "needs": need}


def _beside(file: Path) -> Path:
    return file.with_suffix(".json")


def _has_seconds(file: Path) -> bool:
    try:
        return moments_seconds(file) >= 0
    except (OSError, ValueError, KeyError, TypeError):
        return False


def moments_seconds(file: Path) -> float:
    """Return the seconds that moments took."""
    seconds: float = read_json(_beside(file))["seconds"]
    return seconds
