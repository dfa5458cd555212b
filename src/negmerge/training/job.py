"""One training run as a job: from weights or from scratch, on given rows, to a checkpoint and its facts."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.errors import NegmergeError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Starts, Task, need
from negmerge.training.adapters import AdapterSettings, attach, write_adapter
from negmerge.training.fitting import fit_rows
from negmerge.training.progress import Progress
from negmerge.training.running_statistics import statistics_layers
from negmerge.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainingJob:
    """Everything a process needs to train one model of a task on some of its rows.

    The results are `directory/model.safetensors` and, written last, `directory/training.json` (settings, loss of
    each epoch, seconds). With `resumable`, the state after each epoch is kept until then. With `adapter` the weights
    of `start` stay, and a LoRA adapter whose A is drawn from `adapter_seed` is trained and stored, alone; batch
    normalisation keeps its running statistics then, since no adapter holds them.
    """

    name: str
    directory: Path
    task: Task
    rows: tuple[int, ...]
    settings: dict[str, Any]
    seed: int
    device: str
    start: Path | None = None
    resumable: bool = False
    adapter: AdapterSettings | None = None
    adapter_seed: int = 0

    @property
    def checkpoint(self) -> Path:
        """The trained weights: a file, or the folder of an adapter."""
        return self.directory / ("adapter" if self.adapter else "model.safetensors")

    @property
    def facts_file(self) -> Path:
        """The file that marks the job as done."""
        return self.directory / "training.json"

    @property
    def state_file(self) -> Path:
        """The state after the last whole epoch, of a resumable job that is not done."""
        return self.directory / "last-epoch.pt"

    @property
    def is_done(self) -> bool:
        """Whether the job was finished before."""
        return self.facts_file.exists()

    def facts(self) -> dict[str, Any]:
        """Return what a finished job wrote about itself."""
        facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        return facts


def train(job: TrainingJob) -> dict[str, Any]:
    """Do the job, unless it is done, and return its facts.

    Raises NegmergeError, naming the job, where training diverges.
    """
    if job.is_done:
        return job.facts()
    progress = Progress(job.state_file if job.resumable else None)
    job.directory.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(**job.settings)
    task = job.task
    model = task.open(job.start) if job.start else need(task, Starts, job.name).start(derive_seed(job.seed, "init"))
    targets = attach(model, job.adapter, job.adapter_seed) if job.adapter else []
    if job.adapter and statistics_layers(model):
        settings = settings.model_copy(update={"freeze_statistics": True})
    start = progress.restore(model)
    task.place(model, job.device)
    rows = torch.tensor(job.rows, dtype=torch.int64)
    after = partial(progress.save, model)
    try:
        fit_rows(task, model, rows, settings, seed=job.seed, start=start, on_epoch=after)
    except NegmergeError as error:
        raise NegmergeError(f"{job.name}: {error}") from None
    if job.adapter:
        write_adapter(job.checkpoint, model, job.adapter, targets)
    else:
        write_state_dict(job.checkpoint, task.trained(model))
    facts = {
        "name": job.name,
        "settings": job.settings,
        "seed": job.seed,
        "rows": len(job.rows),
        "losses": progress.losses,
        "seconds": progress.seconds,
    }
    write_bytes_atomic(job.facts_file, json.dumps(facts, indent=1).encode())
    progress.clear()
    return facts
