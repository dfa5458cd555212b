"""The stages of one seed: base, reference, pool, methods; each reads and writes files, and is skipped when done."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.evaluation import apply_vector, has_statistics
from negmerge.execution import run_jobs
from negmerge.experiment.choices import Buffers, Recalibrate
from negmerge.experiment.config import BaseConfig, Config, MethodConfig, ReferenceConfig
from negmerge.experiment.health import mean_cosine, pool_health
from negmerge.experiment.measure import Bench
from negmerge.experiment.methods import run_method
from negmerge.experiment.prepare import Material
from negmerge.experiment.rundir import RunDir, read_json, write_json
from negmerge.experiment.selecting import Selector
from negmerge.merging.statistics import inspect_checkpoints
from negmerge.selection import Selection
from negmerge.training import TrainSettings, derive_seed
from negmerge.training.job import TrainingJob, train
from negmerge.training.pool import expand_grid
from negmerge.unlearning import Context, Outcome


@dataclass
class Finished:
    """What the stages of one seed wrote, read back."""

    base: dict[str, Any]
    reference: dict[str, Any] | None
    pool: dict[str, Any]
    members: list[dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    leave_one_out: dict[str, float]


class SeedRun:
    """One seed of an experiment in its folder."""

    def __init__(self, place: RunDir, config: Config, material: Material, seed: int) -> None:
        self.place, self.config, self.material, self.seed = place, config, material, seed
        self.cores = os.cpu_count() or 1
        self.threads = config.threads or self.cores
        self.bench = Bench(
            material.classifier,
            material.store,
            material.split,
            config.evaluation.membership,
            seed,
            material.device,
        )
        self.selector = Selector(
            material.classifier,
            material.store,
            material.split,
            config.selection,
            seed,
            material.device,
            self.reference,
        )
        policies = [config.buffers, *(method.buffers for method in config.methods)]
        if any(isinstance(p, Recalibrate) for p in policies) and not has_statistics(material.classifier.build()):
            raise InputError(f"buffers: {config.model.family} has no running statistics to recalibrate; use keep")

    def finish(self) -> Finished:
        """Do whatever is not done, in order, and return all results."""
        with self.place.stage("base"):
            self._make_originals()
        with self.place.stage("pool"):
            members, pool = self._make_pool()
        methods = {}
        for method in self.config.methods:
            with self.place.stage(f"method {method.row}", method=method.row):
                methods[method.row] = self._make_method(method, members, pool["seconds"])
        left_out: dict[str, float] = {}
        if self.config.pool.leave_one_out:
            with self.place.stage("leave one out"):
                left_out = self._leave_one_out(members)
        with self.place.stage("evaluation"):
            base = {**self._scores("base", self.base), **self._seconds("base")}
            reference = None
            if self.reference:
                reference = {**self._scores("reference", self.reference), **self._seconds("reference")}
        return Finished(base, reference, pool, [job.facts() for job in members], methods, left_out)

    # base and reference

    @property
    def base(self) -> Path:
        """The checkpoint of the model to unlearn."""
        return self.place.path / "base" / "model.safetensors"

    @property
    def reference(self) -> Path | None:
        """The checkpoint of the Retrain model, if the run has one."""
        return self.place.path / "reference" / "model.safetensors" if self.config.reference else None

    def _make_originals(self) -> None:
        split = self.material.split
        jobs = []
        for name, part, rows in (
            ("base", self.config.base, torch.cat([split.retain, split.forget]).sort().values),
            ("reference", self.config.reference, split.retain),
        ):
            if part is None:
                continue
            if part.checkpoint is not None:
                self._import(part.checkpoint, self.place.path / name)
            else:
                jobs.append(self._job(name, self.place.path / name, rows, self._train_settings(part)))
        self._train(jobs, threads=max(1, self.threads // max(1, len(jobs))), workers=len(jobs))

    def _seconds(self, name: str) -> dict[str, Any]:
        """Return the training time of base or reference; nothing is known of one that was given."""
        file = self.place.path / name / "training.json"
        return {"seconds": read_json(file)["seconds"] if file.exists() else None}

    def _train_settings(self, part: BaseConfig | ReferenceConfig) -> TrainSettings:
        settings = self.config.base.train if part.train == "base" else part.train
        assert isinstance(settings, TrainSettings)
        return settings

    def _import(self, checkpoint: Path, directory: Path) -> None:
        """Take over a checkpoint given by the user, once it is known to fit the family."""
        target = directory / "model.safetensors"
        if target.exists():
            return
        state = self.material.classifier.load(checkpoint).state_dict()
        directory.mkdir(parents=True, exist_ok=True)
        write_state_dict(target, {name: value.contiguous() for name, value in state.items()})

    def _job(
        self,
        name: str,
        directory: Path,
        rows: torch.Tensor,
        settings: TrainSettings,
        start: Path | None = None,
        again: int = 0,
    ) -> TrainingJob:
        # Base and reference differ in their rows alone, so they share the seed of weights and batches.
        part = f"member {name}" if start else "from scratch" + (f" {again}" if again else "")
        return TrainingJob(
            name=name,
            directory=directory,
            classifier=self.material.classifier,
            store=self.material.store.directory,
            rows=tuple(rows.tolist()),
            settings=settings.model_dump(mode="json"),
            seed=derive_seed(self.seed, part),
            device=self.material.device,
            start=start,
            resumable=start is None,
        )

    def _train(self, jobs: Sequence[TrainingJob], *, workers: int, threads: int) -> None:
        open_jobs = [job for job in jobs if not job.is_done]
        if self.material.device != "cpu":
            workers = 1
        self.place.emit("training", jobs=len(jobs), done=len(jobs) - len(open_jobs))
        # The longest first, so that no worker is left alone with one at the end.
        open_jobs.sort(key=lambda job: -job.settings["epochs"] * len(job.rows))
        run_jobs(
            train,
            open_jobs,
            workers=workers,
            threads=threads,
            on_done=lambda job, facts: self.place.emit(
                "trained", name=job.name, loss=facts["losses"][-1], seconds=round(facts["seconds"], 3)
            ),
        )

    # pool

    def _make_pool(self) -> tuple[list[TrainingJob], dict[str, Any]]:
        folder = self.place.private / "pool"
        members = expand_grid(self.config.pool.train, self.config.pool.grid)
        jobs = [
            self._job(m.name, folder / m.name, self.material.split.forget, m.settings, start=self.base) for m in members
        ]
        workers = min(self.config.workers or self.cores, len(jobs))
        self._train(jobs, workers=workers, threads=1)
        facts_file = self.place.path / "pool.json"
        if not facts_file.exists():
            found = inspect_checkpoints(self.base, [job.checkpoint for job in jobs]).as_json()
            facts = {key: found[key] for key in ("consensus", "chance", "zero_share", "cosine")}
            facts["mean_cosine"] = mean_cosine(found["cosine"])
            facts["health"] = pool_health(
                self.material.classifier,
                self.material.store,
                self.material.split.forget,
                self.base,
                {m.name: job.checkpoint for m, job in zip(members, jobs, strict=True)},
                self.material.device,
            )
            spent = sum(job.facts()["seconds"] for job in jobs)
            write_json(facts_file, {**facts, "workers": workers, "seconds": spent / workers})
        return jobs, read_json(facts_file)

    # methods

    def _make_method(self, method: MethodConfig, members: list[TrainingJob], pool_seconds: float) -> dict[str, Any]:
        folder = self.place.path / "methods" / method.row
        outcome_file = folder / "outcome.json"
        checkpoint = folder / "model.safetensors"
        if not outcome_file.exists():
            outcome = run_method(method.name, method.settings, self._context(method, members, pool_seconds))
            folder.mkdir(parents=True, exist_ok=True)
            self._write_model(outcome, checkpoint, self.config.buffers_of(method))
            write_json(outcome_file, {**_facts(outcome), "oracle": self._oracle(method, outcome)})
        return {**read_json(outcome_file), **self._scores(f"methods/{method.row}", checkpoint)}

    def _context(
        self, method: MethodConfig, members: Sequence[TrainingJob], pool_seconds: float, row: str = ""
    ) -> Context:
        row = row or method.row
        private = self.place.private / "methods" / row
        return Context(
            base=self.base,
            members=tuple(job.checkpoint for job in members),
            pool_seconds=pool_seconds,
            directory=private,
            choose=partial(self._choose, row, self.config.buffers_of(method)),
            retrain=partial(self._retrain, private),
        )

    def _leave_one_out(self, members: list[TrainingJob]) -> dict[str, float]:
        """Return the α chosen for the consensus without each member, by the member's name."""
        file = self.place.path / "leave-one-out.json"
        if not file.exists():
            method = next(m for m in self.config.methods if m.name == "consensus")
            chosen = {}
            for left in members:
                others = [job for job in members if job is not left]
                context = self._context(method, others, 0.0, f"{method.row}-without-{left.directory.name}")
                outcome = run_method(method.name, method.settings, context)
                assert outcome.selection is not None
                chosen[left.directory.name] = outcome.selection.alpha
            write_json(file, chosen)
        found: dict[str, float] = read_json(file)
        return found

    def _choose(self, row: str, buffers: Buffers, vector: Path, curve_file: Path) -> Selection:
        def tell(alpha: float, scores: dict[str, float]) -> None:
            self.place.emit("evaluated", method=row, alpha=alpha, **scores)

        return self.selector.choose(self.base, vector, curve_file, tell, buffers=buffers)

    def _oracle(self, method: MethodConfig, outcome: Outcome) -> dict[str, float] | None:
        """Return how far the α of match-holdout lands from the oracle's; None for other objectives, or without one."""
        objective = self.config.selection.objective
        if objective != "match-holdout" or self.reference is None or outcome.vector is None:
            return None
        assert outcome.selection is not None
        curve_file = self.place.private / "methods" / method.row / "oracle.json"

        def tell(alpha: float, scores: dict[str, float]) -> None:
            self.place.emit("evaluated", method=f"{method.row} (oracle)", alpha=alpha, **scores)

        buffers = self.config.buffers_of(method)
        return self.selector.oracle(self.base, outcome.vector, curve_file, outcome.selection.alpha, tell, buffers)

    def _retrain(self, directory: Path, settings: TrainSettings | None, seed: int = 0) -> tuple[Path, float]:
        reference = self.config.reference
        own = self._train_settings(reference) if reference and reference.train else None
        wanted = settings or self.config.base.train or own
        if wanted is None:
            raise InputError(
                "retrain: the base was not trained here; give the method settings: {name: retrain, train: …}"
            )
        same = wanted == own and seed == 0
        name, place = ("reference", self.place.path / "reference") if same else ("retrain", directory)
        job = self._job(name, place, self.material.split.retain, wanted, again=seed)
        self._train([job], workers=1, threads=self.threads)
        return job.checkpoint, job.facts()["seconds"]

    def _write_model(self, outcome: Outcome, target: Path, buffers: Buffers) -> None:
        if outcome.checkpoint is not None:
            write_state_dict(target, read_state_dict(outcome.checkpoint))
            return
        assert outcome.vector is not None and outcome.selection is not None
        if isinstance(buffers, Recalibrate):
            negated = self.selector.negated(self.base, outcome.vector, buffers)
            state = negated.set_alpha(outcome.selection.alpha).state_dict()
            write_state_dict(target, {name: value.cpu().contiguous() for name, value in state.items()})
        else:
            weights = apply_vector(self.base, outcome.vector, outcome.selection.alpha)
            write_state_dict(target, weights)

    def _scores(self, name: str, checkpoint: Path) -> dict[str, Any]:
        file = self.place.path / name / "scores.json"
        if not file.exists():
            write_json(file, self.bench.full_scores(checkpoint))
        scores: dict[str, Any] = read_json(file)
        return scores


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts: dict[str, Any] = {"member": outcome.member, "seconds_parts": outcome.seconds, **outcome.merge}
    if outcome.selection is not None:
        chosen = outcome.selection
        facts |= {
            "alpha": chosen.alpha,
            "floor": chosen.floor,
            "curve": [{"alpha": point.alpha, **point.scores} for point in chosen.curve],
            "open_end": chosen.open_end,
            "note": chosen.note,
        }
    return facts
