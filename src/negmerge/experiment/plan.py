"""What a run will take, before it starts: members, passes, minutes, disk."""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from negmerge.execution import torch_threads
from negmerge.experiment.choices import SelectionConfig
from negmerge.experiment.config import Config
from negmerge.experiment.prepare import Material, choose_device, load_data, make_classifier
from negmerge.experiment.workload import workload
from negmerge.requests.splits import Split
from negmerge.tasks.image_classification.classifier import Classifier
from negmerge.tasks.image_classification.inference import predict
from negmerge.training import TrainSettings
from negmerge.training.images import fit_images
from negmerge.training.pool import expand_grid

EVALUATIONS = 8, 13  # of α, for one vector, by the bracket search: up to α = 1; where the bracket is open
STEP_ROWS = {"cpu": 32, "mps": 128, "cuda": 256}  # images in a timed step: enough to keep the device busy


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

    Nothing is written. The estimate supposes that nothing of the run is there yet, that every worker is as fast as this
    process is on one thread, and that the machine does nothing else, now and then. Raises InputError as loading the
    data does.
    """
    loaded = load_data(config.data, config.model)
    source, split = loaded.source, loaded.split
    device = choose_device(config.device)
    images = source.train.images
    classifier = make_classifier(config, len(source.train.classes), images.shape[1:], device, loaded.prompts)
    size = source.train.images.numel() + source.test.images.numel()
    some = torch.arange(min(STEP_ROWS[device], len(images)))
    with classifier.compute.float_products():
        return estimate(config, split, classifier, device, (images[some], source.train.labels[some]), size)


def estimate_prepared(config: Config, material: Material) -> Plan:
    """Return what a run will take whose data stage is done, from a few steps on its first images."""
    table = material.store.table("train")
    some = table.take(torch.arange(min(STEP_ROWS[material.device], len(table))))
    return estimate(config, material.split, material.classifier, material.device, some, material.bytes)


def estimate(
    config: Config,
    split: Split,
    classifier: Classifier,
    device: str,
    some: tuple[torch.Tensor, torch.Tensor],
    image_bytes: int,
) -> Plan:
    """Time a few steps on `some` images with their labels, and return what the run will take.

    The estimate supposes that nothing of the run is there yet, that every worker is as fast as this process is on one
    thread, and that nothing is compiled.
    """
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
    if config.selection.objective == "match-reference":
        samples += rows["validation"]
    points = _evaluations(config.selection)
    works = [workload(config, len(members), rows, place) for place in range(len(config.seeds))]
    vectors, judged = sum(work.vectors for work in works), sum(work.judged for work in works)
    seeds = len(config.seeds)
    models = (len(config.methods) + 1 + (config.reference is not None)) * seeds
    evaluated = (vectors * points + judged) * samples + models * sum(rows.values())
    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    threads = min(config.threads or cores, cores)
    workers = min(config.workers or cores, len(members)) if device == "cpu" else 1
    train_speed, predict_speed = _speeds(classifier, *some, device, threads)
    model_bytes = sum(t.numel() * t.element_size() for t in classifier.build().state_dict().values())
    kept = len(members) * seeds + vectors + judged + models
    trained = training * seeds + sum(work.trained for work in works)
    seconds = trained / train_speed / threads + pool * seeds / train_speed / workers + evaluated / predict_speed
    return Plan(
        seeds=seeds,
        members=[member.name for member in members],
        rows=rows,
        training_images=trained,
        pool_images=pool * seeds,
        evaluated_images=evaluated,
        images_per_second=train_speed,
        minutes=seconds / 60,
        disk=kept * model_bytes + image_bytes,
    )


def _evaluations(selection: SelectionConfig) -> int:
    """Return how many α are evaluated for a vector: all of the grid; of a bracket what curves of one valley take."""
    if selection.search == "grid":
        return int((selection.max_alpha or 1.0) / selection.step + 1e-6) + 1
    return EVALUATIONS[selection.max_alpha is None or selection.max_alpha > 1.0]


def _speeds(
    classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, device: str, threads: int
) -> tuple[float, float]:
    """Return images per second of training on one thread and of inference on `threads`, both warmed up."""
    plain = replace(classifier, compute=replace(classifier.compute, compile=False))
    model = plain.place(plain.build(), device)
    settings = TrainSettings(lr=1e-5, epochs=1, batch_size=max(2, len(images)))
    with torch_threads(1):
        training = _seconds(lambda: fit_images(plain, model, images, labels, settings, seed=0))
    with torch_threads(threads):
        inference = _seconds(lambda: predict(plain, model, images))
    return len(images) / training, len(images) / inference


def _seconds(step: Callable[[], object]) -> float:
    """Return the seconds of a step: the second of two, or the mean of as many as half a second has time for."""
    step()
    count, started = 0, time.perf_counter()
    while not count or time.perf_counter() - started < 0.5:
        step()
        count += 1
    return (time.perf_counter() - started) / count
