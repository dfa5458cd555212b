"""What a run will take, before it starts: members, passes, minutes, disk."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.evidence.subject import MOST
from negmerge.execution import torch_threads
from negmerge.experiment.alternatives import Speed, ways
from negmerge.experiment.choices import SelectionConfig
from negmerge.experiment.config import Config, RunConfig
from negmerge.experiment.evidence import planned
from negmerge.experiment.hardest import rows_trained
from negmerge.experiment.prepare import Material, load_unwritten
from negmerge.experiment.returning import cost_of_curve, tests_for
from negmerge.experiment.workload import Workload, workload
from negmerge.tasks.task import Pretrained, need
from negmerge.training import TrainSettings
from negmerge.training.adapters import count_elements
from negmerge.training.fitting import fit_rows

EVALUATIONS = 8, 13  # of α, for one vector, by the bracket search: up to α = 1; where the bracket is open
STEP_ROWS = {"cpu": 32, "mps": 128, "cuda": 256}  # rows that are timed: enough to keep the device busy
QUICK, SLOW = 1.0, 6.0  # seconds: what takes longer is timed once; fewer rows are, where all would take longer


@dataclass(frozen=True)
class Plan:
    """The size of a run. Passes count one row, called by the task's noun, through the model once.

    Minutes are an estimate. `evidence` has those of each test, which count in `minutes`. `ways` are those of
    retraining, of SISA and of the pool alone: see `alternatives`. `lasting` is what testing the candidates of that
    objective takes, which counts in `minutes` as well; None for another one.
    """

    seeds: int
    members: list[str]
    rows: dict[str, int]
    noun: str
    training_rows: int
    pool_rows: int
    evaluated_rows: int
    rows_per_second: float
    minutes: float
    disk: int
    ways: list[dict[str, Any]]
    evidence: list[dict[str, Any]]
    lasting: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values; `disk` in bytes."""
        return asdict(self)


def plan(config: Config, tell: Callable[[str], object] | None = None) -> Plan:
    """Load the data, open every checkpoint, time a few steps, and return what the run will take.

    Nothing is written. `tell` is called with a line for people: what is done next, and what should be known of the
    rows. The estimate supposes that nothing of the run is there yet, that every worker is as fast as this
    process is on one thread, and that the machine does nothing else, now and then. Raises InputError as loading the
    data does, and for a checkpoint that does not fit.
    """
    say = tell or (lambda line: None)
    say("reading the data and the models")
    material = load_unwritten(config)
    for note in material.notes:
        say(note)
    for given in (config.base.checkpoint, config.reference.checkpoint if config.reference else None):
        if given is not None:
            material.task.open(given)
    if config.base.pretrained:
        need(material.task, Pretrained, "base.pretrained").pretrained()
    say("timing a few steps of training and of inference")
    return estimate(config, material)


def _at_once(config: RunConfig, device: str, cores: int) -> int:
    """Return how many times as fast as one process all that train members are."""
    if device == "cuda":
        return max(1, torch.cuda.device_count())
    return config.workers or cores if device == "cpu" else 1


def estimate(config: RunConfig, material: Material) -> Plan:
    """Time a few steps on the first rows of a run, and return what it will take.

    The estimate supposes that nothing of the run is there yet, that every worker is as fast as this process is on one
    thread, that several processes on one card are together as fast as one, and that nothing is compiled.
    """
    split, device = material.split, material.device
    members = config.pool.members()
    training = 0
    if config.base.train:
        training += config.base.train.epochs * (len(split.retain) + len(split.forget))
    if config.reference and config.reference.train:
        own = config.base.train if config.reference.train == "base" else config.reference.train
        assert isinstance(own, TrainSettings)
        training += own.epochs * len(split.retain)
    pool = sum(member.settings.count_rows(len(split.forget)) for member in members)
    rows = split.describe()
    rule = config.selection
    samples = min(rule.retain_rows, rows["retain"]) + min(rule.forget_rows, rows["forget"]) + rows["validation_forget"]
    if rule.objective == "match-reference" or "validation" in rule.floor_scores:
        samples += rows["validation"]
    points = _evaluations(rule)
    works = [workload(config, len(members), rows, place) for place in range(len(config.seeds))]
    vectors, judged = sum(work.vectors for work in works), sum(work.judged for work in works)
    seeds = len(config.seeds)
    models = (len(config.methods) + 1 + (config.reference is not None)) * seeds
    most = config.evaluation.most
    shown = sum(min(n, most or n) if part in ("retain", "forget") else n for part, n in rows.items())
    evaluated = (vectors * points + judged) * samples + models * shown
    evaluated += sum(work.passed for work in works)
    cores = (os.cpu_count() or 1) if device == "cpu" else 1
    threads = min(config.threads or cores, cores)
    workers = min(_at_once(config, device, cores), len(members))
    model = material.task.template()
    model_bytes = sum(t.numel() * t.element_size() for t in material.task.trained(model).values())
    with material.compute.float_products():
        train_speed, predict_speed = _speeds(material, model, members[0].settings, threads)
    whole = vectors + judged + models
    adapters = [config.pool.adapter_of(member) for member in members]
    sizes = [model_bytes if own is None else 4 * count_elements(model, own) for own in adapters]
    members_bytes = sum(sizes) * seeds + max(sizes) * sum(work.members for work in works)
    ranked = rows_trained(config, len(split.retain) + len(split.forget)) if isinstance(config, Config) else 0
    trained = ranked + training * seeds + sum(work.trained for work in works)
    seconds = trained / train_speed / threads + pool * seeds / train_speed / workers + evaluated / predict_speed
    tests = planned(config, material, train_speed * threads, predict_speed)
    seconds += 60.0 * sum(test["minutes"] for test in tests)
    lasting = _lasting(config, material, works, train_speed * threads, predict_speed)
    seconds += 60.0 * (lasting["minutes"] if lasting else 0.0)
    speed = Speed(train_speed * threads, train_speed * workers, predict_speed)
    return Plan(
        seeds=seeds,
        members=[member.name for member in members],
        rows=rows,
        noun=material.task.NOUN,
        training_rows=trained,
        pool_rows=pool * seeds,
        evaluated_rows=evaluated,
        rows_per_second=train_speed,
        minutes=seconds / 60,
        disk=whole * model_bytes + members_bytes + material.bytes,
        ways=[way.as_json() for way in ways(config, material, speed, pool, points * samples)],
        evidence=tests,
        lasting=lasting,
    )


def _lasting(
    config: RunConfig, material: Material, works: Sequence[Workload], train_speed: float, predict_speed: float
) -> dict[str, Any] | None:
    """Return what testing α for what comes back takes, from rows per second; None where no row is chosen so.

    `models` that are tested where no α reaches Retrain, `at_most` where one does; `seconds` of each, and of `curves`,
    those of base and Retrain; `minutes` of `models` and `curves` together.
    """
    models = sum(work.tested for work in works)
    if not models:
        return None
    sizes, rule = material.split.describe(), config.selection
    rows = {
        **sizes,
        "forget": min(rule.forget_rows, sizes["forget"]),
        "retain": min(rule.retain_rows, sizes["retain"]),
        "test": sizes["validation"],
        "test_forget": sizes["validation_forget"],
    }
    rows = {name: min(MOST, count) for name, count in rows.items()} | {
        "forgotten_groups": len(material.about.forgotten)
    }
    cost = cost_of_curve(tests_for(material.task, rule.relearning), rows)
    each = cost.trained / train_speed + cost.evaluated / predict_speed
    curves = 2 * each * len(works)
    return {
        "models": models,
        "at_most": sum(work.tested_at_most for work in works),
        "seconds": each,
        "curves": curves,
        "minutes": (models * each + curves) / 60,
    }


def _evaluations(selection: SelectionConfig) -> int:
    """Return how many α are evaluated for a vector: all of the grid; of a bracket what curves of one valley take."""
    if selection.search == "grid":
        return int((selection.max_alpha or 1.0) / selection.step + 1e-6) + 1
    return EVALUATIONS[selection.max_alpha is None or selection.max_alpha > 1.0]


def _speeds(material: Material, model: nn.Module, like: TrainSettings, threads: int) -> tuple[float, float]:
    """Return rows per second of training on one thread, as members are but of the whole model, and of inference."""
    task, split = material.task.uncompiled(), material.split
    known = torch.cat([split.retain, split.forget])
    rows = _spread(known, STEP_ROWS[material.device])
    model = task.place(model, material.device)
    changed = {"lr": 1e-5, "epochs": 1, "steps": None, "batch_size": max(2, min(like.batch_size, len(rows)))}
    settings = like.model_copy(update=changed)

    def train(some: Tensor) -> None:
        fit_rows(task, model, some, settings, seed=0)

    def predict(some: Tensor) -> None:
        task.observe(model, {"some": some}, {"some": ("correct",)})

    with torch_threads(1):
        training = _rows_per_second(train, rows)
    with torch_threads(threads):
        inference = _rows_per_second(predict, rows)
    return training, inference


def _spread(rows: Tensor, most: int) -> Tensor:
    """Return `most` of the rows at equal distances, all where there are no more."""
    return rows[torch.linspace(0, len(rows) - 1, most).long()] if len(rows) > most else rows


def _rows_per_second(step: Callable[[Tensor], object], rows: Tensor) -> float:
    """Return how many rows pass in a second, once warmed up on two; of a slow model, fewer rows are timed."""
    few = _spread(rows, 2)
    step(few)
    each = _once(partial(step, few)) / len(few)
    if each * len(rows) <= QUICK:
        return len(rows) / _seconds(partial(step, rows))
    some = _spread(rows, int(SLOW / each))
    return len(some) / _once(partial(step, some)) if len(some) > len(few) else 1 / each


def _once(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _seconds(step: Callable[[], object]) -> float:
    """Return the seconds of a step: the second of two, or the mean of as many as half a second has time for."""
    step()
    count, started = 0, time.perf_counter()
    while not count or time.perf_counter() - started < 0.5:
        step()
        count += 1
    return (time.perf_counter() - started) / count
