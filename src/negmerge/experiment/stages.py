"""The stages of one seed: base, reference, pool, methods; each reads and writes files, and is skipped when done."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import hash_file, read_state_dict, write_state_dict
from negmerge.errors import InputError, NegmergeError
from negmerge.execution import run_jobs
from negmerge.experiment.choices import Buffers, Recalibrate
from negmerge.experiment.config import BaseConfig, MethodConfig, ReferenceConfig, RunConfig
from negmerge.experiment.contexts import Contexts, facts_of
from negmerge.experiment.health import mean_cosine, moved_statistics, pool_health
from negmerge.experiment.keys import Keys, digest
from negmerge.experiment.measure import Bench
from negmerge.experiment.methods import check_task, run_method
from negmerge.experiment.prepare import Material
from negmerge.experiment.projecting import Projector
from negmerge.experiment.renewing import method_parts, renew
from negmerge.experiment.rundir import RunDir, read_json, write_json
from negmerge.experiment.selecting import Selector
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.plug_in import file_of
from negmerge.scores.plugged import further_scores
from negmerge.seeding import derive_seed
from negmerge.selection.buffers import has_statistics
from negmerge.selection.negated_model import apply_vector
from negmerge.tasks.task import Pretrained, need
from negmerge.training import TrainSettings
from negmerge.training.job import TrainingJob, begun_with
from negmerge.training.job import train as train_job
from negmerge.training.pool import expand_grid
from negmerge.unlearning.context import Outcome

HOW = ("task", "model", "inputs", "compute", "device")  # of a config: how models are computed
SHARED_BY = "best-single"  # what is shared are members negated one by one


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
    """One seed of an experiment in its folder; `first` is the folder of the first seed, for all others."""

    def __init__(
        self, place: RunDir, config: RunConfig, material: Material, seed: int, first: Path | None = None
    ) -> None:
        self.place, self.config, self.material, self.seed, self.first = place, config, material, seed, first
        self.contexts, self.projector = Contexts(self), Projector(self)
        self.keys = Keys(place.path)
        self.cores = os.cpu_count() or 1
        self.threads = config.threads or self.cores
        self.bench = Bench(
            material.task,
            material.parts,
            config.evaluation.membership,
            seed,
            material.device,
            config.evaluation.most,
            further_scores(config.evaluation.scores, material.task.scores, material.task.COLUMNS),
        )
        self.selector = Selector(
            material.task,
            material.parts,
            config.selection,
            seed,
            material.device,
            self.reference,
        )
        for method in config.methods:
            check_task(method.name, material.task)
        policies = [config.buffers, *(method.buffers for method in config.methods)]
        if any(p not in (None, "keep") for p in policies) and not has_statistics(material.task.template()):
            raise InputError(f"buffers: {material.about.family} has no running statistics to change; use keep")

    def finish(self) -> Finished:
        """Do whatever is not done, in order, and return all results."""
        with self.place.stage("base"):
            self.make_originals()
            self.ground = self._ground()
        with self.place.stage("pool"):
            members, pool = self._make_pool()
        methods = {}
        place = self.config.seeds.index(self.seed)
        for method in self.config.methods:
            if method.seeds is not None and place >= method.seeds:
                continue
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
        facts = [{**job.facts(), "name": job.name} for job in members]
        return Finished(base, reference, pool, facts, methods, left_out)

    # base and reference

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

    def _seconds(self, name: str) -> dict[str, Any]:
        """Return the training time of base or reference; nothing is known of one that was given."""
        file = self.place.path / name / "training.json"
        return {"seconds": read_json(file)["seconds"] if file.exists() else None}

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

    def _ground(self) -> dict[str, Any]:
        """Return what every model and number of this seed hangs on: base, rows, data and seed, as hashes."""
        config, base = self.config.resolved(), self.keys.content(self.base)
        reference = self.reference
        if reference is not None:
            self.keys.content(reference)
        how = {key: config[key] for key in HOW if key in config}
        return {"base": base, "split": self.material.split.hash(), "seed": self.seed, **how}

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
            part = f"member {name}" if start else "from scratch"
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

    def member_job(self, name: str, directory: Path, settings: TrainSettings) -> TrainingJob:
        """Return the job of a member: the base fine-tuned on the forget rows; adapters share one draw of A."""
        job = self.job(name, directory, self.material.parts["forget"], settings, start=self.base)
        adapter, seed = self.config.pool.adapter, derive_seed(self.seed, "adapter")
        if adapter is None:
            return job
        key = digest([job.key, adapter.model_dump(mode="json"), seed])
        return replace(job, adapter=adapter, adapter_seed=seed, key=key)

    def train(self, jobs: Sequence[TrainingJob], *, workers: int, threads: int) -> None:
        """Do the jobs that are not done."""
        open_jobs = [job for job in jobs if not job.is_done]
        for job in open_jobs:
            if job.directory.is_relative_to(self.place.path):
                self.keys.forget(job.checkpoint)
        if self.material.device != "cpu" or not self.material.task.SENT:
            workers = 1
        self.place.emit("training", jobs=len(jobs), done=len(jobs) - len(open_jobs))
        # The longest first, so that no worker is left alone with one at the end.
        open_jobs.sort(key=lambda job: -TrainSettings(**job.settings).count_rows(len(job.rows)))
        run_jobs(
            train_job,
            open_jobs,
            workers=workers,
            threads=threads,
            on_done=self._tell_trained,
        )

    def _tell_trained(self, job: TrainingJob, facts: dict[str, Any]) -> None:
        loss, seconds = (facts["losses"] or [None])[-1], round(facts["seconds"], 3)
        self.place.emit("trained", name=job.name, loss=loss, seconds=seconds)
        if "diverged" in facts:
            self.place.emit("diverged", name=job.name, text=facts["diverged"])

    # pool

    def _make_pool(self) -> tuple[list[TrainingJob], dict[str, Any]]:
        folder = self.place.private / "pool"
        members = expand_grid(self.config.pool.train, self.config.pool.grid)
        wanted = [self.member_job(m.name, folder / m.name, m.settings) for m in members]
        begun = {place: begun_with(place) for place in sorted(folder.glob("*/"))}
        jobs = [_taken_over(replace(job, spare=True), begun) for job in wanted]
        sent = self.material.task.SENT
        at_once = self.material.device == "cpu" and sent  # elsewhere one after the other: so are the seconds
        workers = min(self.config.workers or self.cores, len(jobs)) if at_once else 1
        self.train(jobs, workers=workers, threads=1 if sent else self.threads)
        diverged = {job.name: job.facts()["diverged"] for job in jobs if "diverged" in job.facts()}
        standing = [job for job in jobs if job.name not in diverged]
        if not standing:
            name, text = next(iter(diverged.items()))
            raise NegmergeError(f"every member of the pool diverged; the first, {name}: {text}")
        self.members = {job.name: self.keys.content(job.checkpoint) for job in standing}
        facts_file = self.place.path / "pool.json"
        self._keep("pool", {"members": self.members, "diverged": diverged, **self.ground}, facts_file)
        if not facts_file.exists():
            found = inspect_checkpoints(self.base, [job.checkpoint for job in standing]).as_json()
            facts = {key: found[key] for key in ("consensus", "chance", "zero_share", "cosine")}
            facts["mean_cosine"] = mean_cosine(found["cosine"])
            checkpoints = {job.name: job.checkpoint for job in standing}
            facts["health"] = pool_health(
                self.material.task, self.material.parts["forget"], self.base, checkpoints, self.material.device
            )
            facts["statistics_moved"] = moved_statistics(self.base, checkpoints)
            spent = sum(job.facts()["seconds"] for job in jobs)
            facts |= {"diverged": diverged} if diverged else {}
            write_json(facts_file, {**facts, "workers": workers, "seconds": spent / workers})
        return standing, read_json(facts_file)

    def _keep(self, name: str, key: Any, *files: Path) -> None:
        """Remove files that were not made of what the key stands for, and keep the key."""
        if self.keys.get(name) != digest(key):
            for file in files:
                file.unlink(missing_ok=True)
            self.keys.put(name, digest(key))

    # methods

    def _make_method(self, method: MethodConfig, members: list[TrainingJob], pool_seconds: float) -> dict[str, Any]:
        folder = self.place.path / "methods" / method.row
        outcome_file = folder / "outcome.json"
        checkpoint = folder / "model.safetensors"
        self._renew(method, self._earlier_search(method))
        if not outcome_file.exists() or not checkpoint.exists():
            self.keys.forget(checkpoint)
            context = self.contexts.make(method, members, pool_seconds)
            outcome = run_method(method.name, method.settings, context, self._earlier_search(method))
            folder.mkdir(parents=True, exist_ok=True)
            self._write_model(outcome, checkpoint, self.config.buffers_of(method))
            write_json(outcome_file, {**facts_of(outcome), "oracle": self.contexts.oracle(method, outcome)})
        return {**read_json(outcome_file), **self._scores(f"methods/{method.row}", checkpoint)}

    def _renew(
        self, method: MethodConfig, earlier: dict[str, Any] | None = None, left: TrainingJob | None = None
    ) -> None:
        """Remove of a row, or of the row without a member, what no longer hangs on what is there."""
        members = {name: found for name, found in self.members.items() if left is None or name != left.name}
        reference = None if self.reference is None else self.keys.content(self.reference)
        parts = method_parts(self.config, method, self.ground, members, reference, earlier)
        row = method.row if left is None else self._without(method, left)
        private = self.place.private
        result = self.place.path / "methods" / method.row if left is None else None
        renew(self.place, row, parts, private / "methods" / row, result)
        shared = self.contexts.shared(method)
        own = method_parts(
            self.config, method.model_copy(update={"name": SHARED_BY}), self.ground, members, reference, None
        )
        if left is None:
            renew(self.place, f"shared {shared.name}", {**own, "made": digest([self.ground, members])}, shared, None)

    def _without(self, method: MethodConfig, left: TrainingJob) -> str:
        return f"{method.row}-without-{left.name}"

    def _earlier_search(self, method: MethodConfig) -> dict[str, Any] | None:
        """Return the record of the search for the method's settings on the run's first seed, on any other seed."""
        if self.first is None:
            return None
        found: dict[str, Any] | None = read_json(self.first / "methods" / method.row / "outcome.json").get("search")
        return found

    def _leave_one_out(self, members: list[TrainingJob]) -> dict[str, float]:
        """Return the α chosen for the consensus without each member, by the member's name."""
        file = self.place.path / "leave-one-out.json"
        method = next(m for m in self.config.methods if m.name == "consensus")
        self._keep("leave one out", self.keys.get(f"method {method.row}"), file)
        if not file.exists():
            chosen = {}
            for left in members if len(members) > 1 else ():
                others = [job for job in members if job is not left]
                self._renew(method, left=left)
                context = self.contexts.make(method, others, 0.0, self._without(method, left))
                outcome = run_method(method.name, method.settings, context)
                assert outcome.selection is not None
                chosen[left.name] = outcome.selection.alpha
            write_json(file, chosen)
        found: dict[str, float] = read_json(file)
        return found

    def _write_model(self, outcome: Outcome, target: Path, buffers: Buffers) -> None:
        if outcome.checkpoint is not None:
            write_state_dict(target, read_state_dict(outcome.checkpoint))
            return
        assert outcome.vector is not None and outcome.selection is not None
        if isinstance(buffers, Recalibrate):
            negated = self.selector.negated(self.base, outcome.vector, buffers)
            write_state_dict(target, self.material.task.trained(negated.set_alpha(outcome.selection.alpha)))
        else:
            weights = apply_vector(self.base, outcome.vector, outcome.selection.alpha)
            write_state_dict(target, weights)

    def _scores(self, name: str, checkpoint: Path) -> dict[str, Any]:
        file = self.place.path / name / "scores.json"
        files = [file for file in map(file_of, self.config.evaluation.scores) if file is not None]
        of = [self.config.evaluation.model_dump(mode="json"), [hash_file(file) for file in files]]
        self._keep(f"scores {name}", [of, self.keys.content(checkpoint), self.ground], file)
        if not file.exists():
            write_json(file, self.bench.full_scores(checkpoint))
        scores: dict[str, Any] = read_json(file)
        return scores


def _taken_over(job: TrainingJob, begun: Mapping[Path, tuple[str, int] | None]) -> TrainingJob:
    """Return the job of a member in the folder where the run has it already, if from another place in its grid.

    Its seed is then the one that it was first trained with.
    """
    own = begun.get(job.directory)
    if own is not None and own[0] == job.key:
        return replace(job, seed=own[1])
    for place, found in begun.items():
        if found is not None and found[0] == job.key and (place / "training.json").exists():
            return replace(job, directory=place, seed=found[1])
    return job
