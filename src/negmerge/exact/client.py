"""One client's training: from θ₀ on its own rows, sifted after every step, to a vector and its mask."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.checkpoints import hash_file, read_state_dict, write_bytes_atomic
from negmerge.errors import NegmergeError
from negmerge.exact.sift_masks import Sift, write_vector
from negmerge.seeding import derive_seed
from negmerge.training.job import TrainingJob, check_finite
from negmerge.training.loop import fit
from negmerge.training.progress import Progress
from negmerge.training.running_statistics import statistics_layers
from negmerge.training.settings import TrainSettings


@dataclass(frozen=True)
class ClientJob(TrainingJob):
    """The training of a client: `start` is θ₀, `sign_seed` that of v; its result is a vector, not a checkpoint."""

    sign_seed: int = 0

    @property
    def checkpoint(self) -> Path:
        """The file of the vector and its mask."""
        return self.directory / "vector.safetensors"


def train_client(job: ClientJob) -> dict[str, Any]:
    """Train a client, unless that is done, and return its facts: losses, seconds, elements, kept, hash of its vector.

    An interrupted training goes on after its last whole epoch and ends with the same bits. Layers with running
    statistics keep θ₀'s. Raises DivergedError, naming the client, where training diverges.
    """
    if job.is_done:
        return job.facts()
    job.begin()
    assert job.start is not None
    progress, task = Progress(job.state_file), job.task
    settings = TrainSettings(**job.settings)
    model = task.place(task.open(job.start), job.device)
    if statistics_layers(model):
        settings = settings.model_copy(update={"freeze_statistics": True})
    sift = Sift(model, job.sign_seed)  # before weights are restored: it takes θ₀ from the model
    start = progress.restore(model)
    batches = task.batches(torch.tensor(job.rows), settings, derive_seed(job.seed, settings.seed), job.device)

    def loss(module: nn.Module, batch: object) -> Tensor:
        return task.loss(module, batch, settings)

    try:
        fit(
            model,
            batches,
            loss,
            settings,
            steps_per_epoch=batches.steps,
            start=start,
            on_epoch=partial(progress.save, model),
            after_step=sift,
        )
        check_finite(task.trained(model))
    except NegmergeError as error:
        raise type(error)(f"client {job.name}: {error}") from None
    counts = write_vector(job.checkpoint, read_state_dict(job.start), model)
    facts = {
        "name": job.name,
        "rows": len(job.rows),
        "losses": progress.losses,
        "seconds": progress.seconds,
        **counts,
        "vector": hash_file(job.checkpoint),
    }
    write_bytes_atomic(job.facts_file, json.dumps(facts, indent=1).encode())
    progress.clear()
    return facts
