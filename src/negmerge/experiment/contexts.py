"""What the methods of one seed are given, and what is written down of their outcome."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.experiment.choices import Buffers, Recalibrate, describe_buffers
from negmerge.experiment.config import MethodConfig
from negmerge.experiment.judging import Judge
from negmerge.experiment.projecting import Projector
from negmerge.experiment.selecting import Selector
from negmerge.experiment.trainer import Trainer
from negmerge.experiment.workload import vectors_tested
from negmerge.seeding import derive_seed
from negmerge.selection import LASTING, Selection
from negmerge.training import TrainSettings
from negmerge.training.job import TrainingJob
from negmerge.training.pool import expand_grid
from negmerge.unlearning.context import Context, Grid, Outcome, TrainingData, TrainingTask, lasting_json


class Contexts:
    """Makes the contexts of one seed's methods, each with a private folder of its own."""

    def __init__(self, trainer: Trainer, selector: Selector, projector: Projector) -> None:
        self.trainer, self.selector, self.projector = trainer, selector, projector

    def make(self, method: MethodConfig, members: Sequence[TrainingJob], pool_seconds: float, row: str = "") -> Context:
        """Return the context of a method for these members of the pool; `row` stands in for the name of its row."""
        trainer, row = self.trainer, row or method.row
        buffers, projection = trainer.config.buffers_of(method), method.projected
        return Context(
            base=trainer.base,
            members=tuple(job.checkpoint for job in members),
            pool_seconds=pool_seconds,
            directory=trainer.place.private / "methods" / row,
            shared=self.shared(method),
            common=trainer.place.private / "common",
            seed=trainer.seed,
            data=self._data(method.name),
            choose=partial(self._choose, row, buffers, self._lasting(method)),
            score=partial(self._score, buffers),
            write=partial(self._write, buffers),
            judge=self._judge.scores,
            rank=self._judge.rank,
            train=self._train,
            train_pool=self._train_pool,
            start=trainer.start_of_base,
            retrain=self._retrain,
            tell=partial(self._tell, row),
            buffers="negate" if buffers == "negate" else "keep",
            projecting=None if projection is None else self.projector.projecting(projection),
            recalibrates=isinstance(buffers, Recalibrate),
            include=tuple(method.include),
            exclude=tuple(method.exclude),
        )

    def shared(self, method: MethodConfig) -> Path:
        """Return the folder that rows with the same buffers, projection and tensors share: curves hang on all."""
        policy = describe_buffers(self.trainer.config.buffers_of(method)).replace(" ", "-")
        projection = method.projected
        if projection is not None:
            policy = f"{policy}-{sha256(projection.model_dump_json().encode()).hexdigest()[:12]}"
        if method.include or method.exclude:
            policy = f"{policy}-{sha256(repr((method.include, method.exclude)).encode()).hexdigest()[:12]}"
        return self.trainer.place.private / "shared" / policy

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.selector, self.trainer.base)

    def _data(self, name: str) -> TrainingData:
        trainer, trained = self.trainer, self.trainer.config.base.train
        return TrainingData(
            task=trainer.material.task,
            forget=trainer.material.parts["forget"],
            retain=trainer.material.parts["retain"],
            validation=trainer.material.parts["validation"],
            device=trainer.material.device,
            seed=derive_seed(trainer.seed, f"method {name}"),
            augment=trained.augment if trained else "none",
            whole=trainer.material.split.kind in ("class", "source"),
        )

    def _tell(self, row: str, event: str, **facts: Any) -> None:
        self.trainer.place.emit(event, method=row, **facts)

    def _tell_point(self, row: str, alpha: float, scores: dict[str, float]) -> None:
        self._tell(row, "evaluated", alpha=alpha, **scores)

    def _lasting(self, method: MethodConfig) -> int | None:
        """Return how many α of a vector are tested for what comes back, at most; None where none is."""
        found = vectors_tested(self.trainer.config, method)
        return found[1] if found else None

    def _choose(
        self, row: str, buffers: Buffers, tested: int | None, vector: Path, curve_file: Path, start: Path | None = None
    ) -> Selection:
        tell = partial(self._tell_point, row)
        objective = "retain-floor" if self.selector.rule.objective == LASTING and tested is None else None
        return self.selector.choose(
            start or self.trainer.base,
            vector,
            curve_file,
            tell,
            buffers=buffers,
            objective=objective,
            candidates=tested,
        )

    def _score(self, buffers: Buffers, vector: Path, alpha: float) -> dict[str, float]:
        return self.selector.score_at(self.trainer.base, vector, alpha, buffers)

    def _write(self, buffers: Buffers, vector: Path, alpha: float, target: Path) -> None:
        write_state_dict(target, self.selector.weights_at(self.trainer.base, vector, alpha, buffers))

    def oracle(self, method: MethodConfig, outcome: Outcome) -> dict[str, float] | None:
        """Return how far the α of match-holdout lands from the oracle's; None for other objectives, or without one."""
        trainer = self.trainer
        if trainer.config.selection.objective != "match-holdout" or trainer.reference is None or outcome.vector is None:
            return None
        assert outcome.selection is not None
        curve_file = trainer.place.private / "methods" / method.row / "oracle.json"
        tell, buffers = partial(self._tell_point, f"{method.row} (oracle)"), trainer.config.buffers_of(method)
        return self.selector.oracle(trainer.base, outcome.vector, curve_file, outcome.selection.alpha, tell, buffers)

    def _train(self, task: TrainingTask) -> tuple[Path, float]:
        settings = task.settings or self._scratch_settings()
        epochs = max(1, round(settings.epochs * task.epochs_factor))
        job = self.trainer.job(
            task.name,
            task.directory,
            task.rows,
            settings.model_copy(update={"epochs": epochs}),
            start=task.start,
            part=task.name,
            resumable=True,
        )
        self.trainer.train([job], workers=1, threads=self.trainer.threads)
        return job.checkpoint, job.facts()["seconds"]

    def _train_pool(self, start: Path, rows: Tensor, grid: Grid | None) -> tuple[tuple[Path, ...], float]:
        trainer, pool = self.trainer, self.trainer.config.pool
        folder, jobs = trainer.place.private / "common" / "members", []
        for member in expand_grid(pool.train, pool.grid if grid is None else grid):
            job = trainer.member_job(member, folder, start, rows)
            jobs.append(replace(job, directory=folder / f"{member.name}-{job.key[:8]}"))
        trained = trainer.train_members(jobs)
        return tuple(job.checkpoint for job in trained.standing), trained.seconds

    def _retrain(self, settings: TrainSettings | None, directory: Path, seed: int) -> tuple[Path, float]:
        trainer, reference = self.trainer, self.trainer.config.reference
        own = trainer.train_settings(reference) if reference and reference.train else None
        wanted = settings or self._scratch_settings()
        same = wanted == own and seed == 0
        name, place = ("reference", trainer.place.path / "reference") if same else ("retrain", directory)
        part = f"from scratch {seed}" if seed else None
        job = trainer.job(name, place, trainer.material.parts["retain"], wanted, part=part)
        trainer.train([job], workers=1, threads=trainer.threads)
        return job.checkpoint, job.facts()["seconds"]

    def _scratch_settings(self) -> TrainSettings:
        """Return the settings by which the run trains from scratch: those of the base, else of the reference."""
        found = self.trainer.config.scratch_settings()
        if found is None:
            raise InputError("the base was not trained here; give the method settings of its own: train: …")
        return found


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """Return what is written down of an outcome, as plain JSON values."""
    facts: dict[str, Any] = {
        "member": outcome.member,
        "seconds_parts": outcome.seconds,
        **outcome.merge,
        **outcome.facts,
    }
    if outcome.search is not None:
        facts["search"] = outcome.search
    if outcome.selection is not None:
        chosen = outcome.selection
        facts |= {
            "alpha": chosen.alpha,
            "lowest_alpha": chosen.lowest,
            "floor": chosen.floor,
            "curve": [{"alpha": point.alpha, **point.scores} for point in chosen.curve],
            "open_end": chosen.open_end,
            "note": chosen.note,
        }
        if chosen.tried and "lasting" not in facts:
            facts["lasting"] = lasting_json([(None, chosen)])
    return facts
