"""One training run as a job: from weights or from scratch, on given rows, to a checkpoint and its facts."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.errors import NegmergeError
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.store import Store
from negmerge.training.images import fit_images
from negmerge.training.progress import Progress
from negmerge.training.settings import TrainSettings, derive_seed


@dataclass(frozen=True)
class TrainingJob:
    """Everything a process needs to train one model on rows of the train table.

    The results are `directory/model.safetensors` and, written last, `directory/training.json` (settings, loss of
    each epoch, seconds). With `resumable`, the state after each epoch is kept until then.
    """

    name: str
    directory: Path
    classifier: Classifier
    store: Path
    rows: tuple[int, ...]
    settings: dict[str, Any]
    seed: int
    device: str
    start: Path | None = None
    resumable: bool = False

    @property
    def checkpoint(self) -> Path:
        """The trained weights."""
        return self.directory / "model.safetensors"

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
    classifier = job.classifier
    model = classifier.load(job.start) if job.start else classifier.start(derive_seed(job.seed, "init"))
    start = progress.restore(model)
    classifier.place(model, job.device)
    images, labels = Store(job.store).table("train").take(torch.tensor(job.rows, dtype=torch.int64))
    after = partial(progress.save, model)
    try:
        fit_images(classifier, model, images, labels, settings, seed=job.seed, start=start, on_epoch=after)
    except NegmergeError as error:
        raise NegmergeError(f"{job.name}: {error}") from None
    write_state_dict(job.checkpoint, {k: v.cpu().contiguous() for k, v in model.state_dict().items()})
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
