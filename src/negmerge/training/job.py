"""One training run as a job: from weights or from scratch, on given rows, to a checkpoint and its facts."""

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.errors import DivergedError, NegmergeError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import Starts, Task, need
from negmerge.training.adapters import AdapterSettings, attach, write_adapter
from negmerge.training.fitting import fit_rows
from negmerge.training.progress import Progress
from negmerge.training.running_statistics import statistics_layers
from negmerge.training.settings import TrainSettings

KEY = "key.json"


@dataclass(frozen=True)
class TrainingJob:
    """Everything a process needs to train one model of a task on some of its rows.

    The results are `directory/model.safetensors` and, written last, `directory/training.json` (settings, loss of
    each epoch, seconds). With `resumable`, the state after each epoch is kept until then. With `adapter` the weights
    of `start` stay, and a LoRA adapter whose A is drawn from `adapter_seed` (for `adapter_drawn` ranks, of which the
    first are kept) is trained and stored, alone; batch normalisation keeps its running statistics then, since no
    adapter holds them. `key` stands for everything that decides the weights, the seed aside: what lies in the folder
    from another key or seed is not taken over. With `spare`, divergence is a result too: `training.json` says it under
    `diverged`, and there are no weights.
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
    adapter_drawn: int | None = None
    key: str = ""
    spare: bool = False

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
        """Whether the job was finished before, and of the same key."""
        if not self.facts_file.exists() or not self._is_ours:
            return False
        return self.checkpoint.exists() or "diverged" in self.facts()

    @property
    def _is_ours(self) -> bool:
        return not self.key or begun_with(self.directory) == (self.key, self.seed)

    def begin(self) -> None:
        """Make the folder ready: what lies in it of another key is removed, and the job's own key written."""
        if not self._is_ours:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.key:
            write_bytes_atomic(self.directory / KEY, json.dumps({"key": self.key, "seed": self.seed}).encode())

    def facts(self) -> dict[str, Any]:
        """Return what a finished job wrote about itself."""
        facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        return facts


def begun_with(directory: Path) -> tuple[str, int] | None:
    """Return the key and the seed of the job that a folder was begun by; None where there is none."""
    try:
        found = json.loads((directory / KEY).read_text())
    except FileNotFoundError:
        return None
    return found["key"], found["seed"]


def train(job: TrainingJob) -> dict[str, Any]:
    """Do the job, unless it is done, and return its facts.

    Raises DivergedError, naming the job, where training diverges, unless it is spare.
    """
    if job.is_done:
        return job.facts()
    job.begin()
    progress = Progress(job.state_file if job.resumable else None)
    settings = TrainSettings(**job.settings)
    task = job.task
    model = task.open(job.start) if job.start else need(task, Starts, job.name).start(derive_seed(job.seed, "init"))
    targets = attach(model, job.adapter, job.adapter_seed, job.adapter_drawn) if job.adapter else []
    if job.adapter and statistics_layers(model):
        settings = settings.model_copy(update={"freeze_statistics": True})
    start = progress.restore(model)
    task.place(model, job.device)
    rows = torch.tensor(job.rows, dtype=torch.int64)
    after = partial(progress.save, model)
    diverged = None
    try:
        fit_rows(task, model, rows, settings, seed=job.seed, start=start, on_epoch=after)
        state = task.trained(model)
        check_finite(state)
        if job.adapter:
            write_adapter(job.checkpoint, model, job.adapter, targets)
        else:
            write_state_dict(job.checkpoint, state)
    except DivergedError as error:
        if not job.spare:
            raise DivergedError(f"{job.name}: {error}") from None
        diverged = str(error)
    except NegmergeError as error:
        raise type(error)(f"{job.name}: {error}") from None
    facts = {
        "name": job.name,
        **({"rank": job.adapter.r} if job.adapter and job.adapter_drawn else {}),
        "settings": job.settings,
        "seed": job.seed,
        "rows": len(job.rows),
        "losses": progress.losses,
        "seconds": progress.seconds,
        **({} if diverged is None else {"diverged": diverged}),
    }
    write_bytes_atomic(job.facts_file, json.dumps(facts, indent=1).encode())
    progress.clear()
    return facts


def check_finite(state: dict[str, torch.Tensor]) -> None:
    """Raise DivergedError for weights that are not numbers: the last step may have made them so."""
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise DivergedError(f"training diverged: {name} holds NaN or Inf; lower the learning rate or set clip")
