"""What a run will take, before it starts: members, passes, minutes, disk."""

import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from negmerge.evaluation import predict
from negmerge.experiment.config import Config
from negmerge.experiment.prepare import choose_device, load_data, make_classifier
from negmerge.experiment.workload import workload
from negmerge.models._classifier import Classifier
from negmerge.training import TrainSettings
from negmerge.training.images import fit_images
from negmerge.training.pool import expand_grid

EVALUATIONS = 8  # of α, for one vector, by the bracket search
GRID_EVALUATIONS = 21


@dataclass(frozen=True)
class Plan:
    """The size of a run. Image passes count one image through the model once; minutes are an estimate."""

    seeds: int
    members: list[str]
    rows: dict[str, int]
    training_images: int
    pool_images: int
    evaluated_images: int
    images_per_second: float
    minutes: float
    disk: int

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; `disk` in bytes."""
        return asdict(self)


def plan(config: Config) -> Plan:
    """Load the data, time a few steps of training and inference, and return what the run will take.

    Nothing is written. The estimate supposes that nothing of the run is there yet, and that every worker
    is as fast as this process is on one thread.
    """
    loaded = load_data(config.data, config.model)
    source, split = loaded.source, loaded.split
    device = choose_device(config.device)
    images = source.train.images
    classifier = make_classifier(config.model, len(source.train.classes), images.shape[1:], loaded.prompts)
    members = expand_grid(config.pool.train, config.pool.grid)
    training = 0
    if config.base.train:
        training += config.base.train.epochs * (len(split.retain) + len(split.forget))
    if config.reference and config.reference.train:
        own = config.base.train if config.reference.train == "base" else config.reference.train
        assert isinstance(own, TrainSettings)
        training += own.epochs * len(split.retain)
    pool = sum(member.settings.count_images(len(split.forget)) for member in members)
    rows = split.describe()
    samples = min(config.selection.retain_rows, rows["retain"]) + (rows["validation_forget"] or rows["forget"])
    points = GRID_EVALUATIONS if config.selection.search == "grid" else EVALUATIONS
    works = [workload(config, len(members), rows, place) for place in range(len(config.seeds))]
    vectors, judged = sum(work.vectors for work in works), sum(work.judged for work in works)
    seeds = len(config.seeds)
    models = (len(config.methods) + 1 + (config.reference is not None)) * seeds
    evaluated = (vectors * points + judged) * samples + models * sum(rows.values())
    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    workers = min(config.workers or cores, len(members)) if device == "cpu" else 1
    train_speed, predict_speed = _speeds(classifier, images, source.train.labels, device)
    model_bytes = sum(t.numel() * t.element_size() for t in classifier.build().state_dict().values())
    kept = len(members) * seeds + vectors + judged + models
    trained = training * seeds + sum(work.trained for work in works)
    seconds = trained / train_speed / cores + pool * seeds / train_speed / workers + evaluated / predict_speed
    return Plan(
        seeds=seeds,
        members=[member.name for member in members],
        rows=rows,
        training_images=trained,
        pool_images=pool * seeds,
        evaluated_images=evaluated,
        images_per_second=train_speed,
        minutes=seconds / 60,
        disk=kept * model_bytes + source.train.images.numel() + source.test.images.numel(),
    )


def _speeds(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, device: str) -> tuple[float, float]:
    """Return images per second of training on one thread and of inference on all, from one short pass each."""
    rows = min(512, len(images))
    model = classifier.build().to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.perf_counter()
        fit_images(
            classifier, model, images[:rows], labels[:rows], TrainSettings(lr=1e-5, epochs=1, batch_size=128), seed=0
        )
        train_speed = rows / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    predict(classifier, model, images[:rows])
    return train_speed, rows / (time.perf_counter() - started)
