"""What trains the models of one seed: base and reference, members, and whatever a method trains."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import hash_file, write_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.execution import run_jobs
from negmerge.experiment.config import BaseConfig, ReferenceConfig, RunConfig
from negmerge.experiment.keys import Keys, digest
from negmerge.experiment.prepare import Material
from negmerge.experiment.rundir import RunDir
from negmerge.seeding import derive_seed
from negmerge.tasks.compute import Compute
from negmerge.tasks.task import Pretrained, Starts, need
from negmerge.training import TrainSettings
from negmerge.training.job import TrainingJob
from negmerge.training.job import train as train_job
from negmerge.training.pool import Member

FROM_SCRATCH = "from scratch"
HOW = ("task", "model", "inputs", "compute", "device")  # of a config: how models are computed


@dataclass(frozen=True)
class TrainedMembers:
    """Members that stand, and what the others say; how many were trained at a time, and the seconds."""

    standing: list[TrainingJob]
    diverged: dict[str, str]
    workers: int
    seconds: float


class Trainer:
    """Trains for one seed of a run, in its folder `place`; `base` and `reference` are its two originals."""

    def __init__(self, place: RunDir, config: RunConfig, material: Material, seed: int) -> None:
        self.place, self.config, self.material, self.seed = place, config, material, seed
        self.keys = Keys(place.path)
        self.cores = os.cpu_count() or 1
        self.threads = config.threads or self.cores
        self.cards = count_cards(material.device)

    def workers_for(self, jobs: int) -> int:
        """Return how many of so many jobs of members are trained at a time: see `most_at_a_time`."""
        asked = self.config.workers or self.cores
        return max(1, min(asked * self.cards, self.most_at_a_time, jobs))

    @property
    def most_at_a_time(self) -> int:
        """How many models may be trained at a time, in processes of their own.

        On a CPU as many as are asked for; on cuda `workers` of the config on each card, one unless it says so; on mps,
        and of a task that stays in this process, one.
        """
        if not self.material.task.SENT or self.material.device == "mps":
            return 1
        if self.material.device == "cpu":
            return sys.maxsize
        return (self.config.workers or 1) * self.cards

    @property
    def base(self) -> Path:
        """The checkpoint of the model to unlearn."""
        return self.place.path / "base" / "model.safetensors"

    @property
    def reference(self) -> Path | None:
        """The checkpoint of the Retrain model, if the run has one."""
        return self.place.path / "reference" / "model.safetensors" if self.config.reference else None

    def make_originals(self) -> None:
        """Train base and reference, or take them over, unless they are there."""
        parts = self.material.parts
        jobs = []
        for name, part, rows in (
            ("base", self.config.base, torch.cat([parts["retain"], parts["forget"]]).sort().values),
            ("reference", self.config.reference, parts["retain"]),
        ):
            if part is None:
                continue
            if part is self.config.base and self.config.base.pretrained:
                self._take_pretrained(self.place.path / name)
            elif part.checkpoint is not None:
                self._import(part.checkpoint, self.place.path / name)
            else:
                jobs.append(self.job(name, self.place.path / name, rows, self.train_settings(part)))
        workers = min(len(jobs), self.config.workers or len(jobs))
        self.train(jobs, threads=max(1, self.threads // max(1, len(jobs))), workers=workers)

    def train_settings(self, part: BaseConfig | ReferenceConfig) -> TrainSettings:
        """Return the training settings of base or reference."""
        settings = self.config.base.train if part.train == "base" else part.train
        assert isinstance(settings, TrainSettings)
        return settings

    def _take_pretrained(self, directory: Path) -> None:
        """Write the weights that the family comes with."""
        target = directory / "model.safetensors"
        if not target.exists():
            self.keys.forget(target)
            directory.mkdir(parents=True, exist_ok=True)
            write_state_dict(target, need(self.material.task, Pretrained, "base.pretrained").pretrained())

    def _import(self, checkpoint: Path, directory: Path) -> None:
        """Take over a checkpoint given by the user, once it is known to fit the family."""
        target = directory / "model.safetensors"
        if target.exists():
            return
        self.keys.forget(target)
        state = self.material.task.trained(self.material.task.open(checkpoint))
        known = {entry["path"]: entry["hash"] for entry in self.material.inputs}
        if str(checkpoint) in known and hash_file(checkpoint) != known[str(checkpoint)]:
            raise InputError(f"{checkpoint} changed since the run was begun; put back what was there, or use --fresh")
        shutil.rmtree(directory, ignore_errors=True)  # what was measured of another one
        directory.mkdir(parents=True)
        write_state_dict(target, state)

    def job(
        self,
        name: str,
        directory: Path,
        rows: torch.Tensor,
        settings: TrainSettings,
        start: Path | None = None,
        part: str | None = None,
        resumable: bool | None = None,
    ) -> TrainingJob:
        """Return the job of training on some rows; `part` is what its seed is derived by."""
        if part is None:
            # Base and reference differ in their rows alone, so they share the seed of weights and batches.
            part = f"member {name}" if start else FROM_SCRATCH
        wanted = settings.model_dump(mode="json")
        config = self.config.resolved()
        how = {key: config[key] for key in HOW if key in config}
        # From scratch a model hangs on rows and settings; a fine-tuned one on the weights that it began with, too.
        begun = None if start is None else self.keys.content(start) if start == self.base else hash_file(start)
        key = digest([how, wanted, rows.tolist(), begun, self.material.split.source])
        return TrainingJob(
            name=name,
            directory=directory,
            task=self.material.task,
            rows=tuple(rows.tolist()),
            settings=wanted,
            seed=derive_seed(self.seed, part),
            device=self.material.device,
            start=start,
            resumable=start is None if resumable is None else resumable,
            key=key,
        )

    def member_job(
        self, member: Member, directory: Path, start: Path | None = None, rows: torch.Tensor | None = None
    ) -> TrainingJob:
        """Return the job of a member: the base fine-tuned on the forget rows; adapters share one draw of A.

        `start` and `rows` stand in for these. Raises InputError for a rank where members are no adapters.
        """
        rows = self.material.parts["forget"] if rows is None else rows
        job = self.job(member.name, directory, rows, member.settings, start=self.base if start is None else start)
        adapter, seed = self.config.pool.adapter_of(member), derive_seed(self.seed, "adapter")
        if adapter is None:
            return job
        drawn = [member.drawn] if member.drawn else []
        key = digest([job.key, adapter.model_dump(mode="json"), seed, *drawn])
        return replace(job, adapter=adapter, adapter_seed=seed, adapter_drawn=member.drawn, key=key)

    def train_members(self, jobs: Sequence[TrainingJob]) -> "TrainedMembers":
        """Train members, several at a time where that is possible; one that diverges is left out.

        Raises NegmergeError where every one diverges.
        """
        workers = self.workers_for(len(jobs))
        spared = [replace(job, spare=True) for job in jobs]
        self.train(spared, workers=workers, threads=1 if self.material.task.SENT else self.threads)
        diverged = {job.name: job.facts()["diverged"] for job in spared if "diverged" in job.facts()}
        standing = [job for job in spared if job.name not in diverged]
        if not standing:
            name, text = next(iter(diverged.items()))
            raise NegmergeError(f"every member of the pool diverged; the first, {name}: {text}")
        return TrainedMembers(standing, diverged, workers, sum(job.facts()["seconds"] for job in spared) / workers)

    def start_of_base(self) -> Path:
        """Return the weights that the training of the base began with, in a file that is made unless it is there."""
        target = self.place.private / "common" / "start.safetensors"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            task, seed = self.material.task, derive_seed(self.seed, FROM_SCRATCH)
            model = need(task, Starts, "an origin").start(derive_seed(seed, "init"))
            write_state_dict(target, task.trained(model))
        return target

    def train(self, jobs: Sequence[TrainingJob], *, workers: int, threads: int) -> None:
        """Do the jobs that are not done."""
        open_jobs = [job for job in jobs if not job.is_done]
        for job in open_jobs:
            if job.directory.is_relative_to(self.place.path):
                self.keys.forget(job.checkpoint)
        workers = max(1, min(workers, self.most_at_a_time))
        self.place.emit("training", jobs=len(jobs), done=len(jobs) - len(open_jobs))
        # The longest first, so that no worker is left alone with one at the end.
        open_jobs.sort(key=lambda job: -TrainSettings(**job.settings).count_rows(len(job.rows)))
        run_jobs(
            partial(_train, self.material.compute),
            on_cards(open_jobs, self.cards if workers > 1 else 1),
            workers=workers,
            threads=threads,
            on_done=self._tell_trained,
        )

    def _tell_trained(self, job: TrainingJob, facts: dict[str, Any]) -> None:
        loss, seconds = (facts["losses"] or [None])[-1], round(facts["seconds"], 3)
        self.place.emit("trained", name=job.name, loss=loss, seconds=seconds)
        if "diverged" in facts:
            self.place.emit("diverged", name=job.name, text=facts["diverged"])


def count_cards(device: str) -> int:
    """Return how many cards a device stands for: of cuda all that can be seen, else one."""
    return max(1, torch.cuda.device_count()) if device == "cuda" else 1


def on_cards(jobs: Sequence[TrainingJob], cards: int) -> list[TrainingJob]:
    """Return the jobs, in their order, spread over the cards in turn; as they are where there is one.

    A job's weights do not hang on its card, so its key does not either.
    """
    if cards == 1:
        return list(jobs)
    return [replace(job, device=f"{job.device}:{i % cards}") for i, job in enumerate(jobs)]


def _train(compute: Compute, job: TrainingJob) -> dict[str, Any]:
    """Train with products as the config wants them, in whatever process this is."""
    with compute.float_products():
        return train_job(job)
