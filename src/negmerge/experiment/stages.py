"""The stages of one seed: base, reference, pool, methods; each reads and writes files, and is skipped when done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import hash_file, read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.evidence.subject import Seeds, Shadows
from negmerge.experiment.choices import Buffers
from negmerge.experiment.config import MethodConfig, RunConfig
from negmerge.experiment.contexts import Contexts, facts_of
from negmerge.experiment.evidence import asks_for_seeds, gather, judged_row, make_controls
from negmerge.experiment.evidence_checks import check_evidence_task
from negmerge.experiment.halves import asks_for_shadows, check_shadows
from negmerge.experiment.health import mean_cosine, moved_statistics, pool_health
from negmerge.experiment.keys import digest
from negmerge.experiment.measure import Bench, further_of
from negmerge.experiment.methods import check_task, describe, run_method
from negmerge.experiment.prepare import Material
from negmerge.experiment.projecting import Projector
from negmerge.experiment.renewing import method_parts, renew
from negmerge.experiment.rundir import RunDir, read_json, write_json
from negmerge.experiment.selecting import Selector
from negmerge.experiment.shadows import ShadowMaker
from negmerge.experiment.showing import Models, show_answers, show_lottery, show_matrix
from negmerge.experiment.trainer import HOW, Trainer
from negmerge.experiment.warnings import warn_of_chance
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.plug_in import file_of
from negmerge.selection.buffers import has_statistics
from negmerge.tasks.task import Answers, need
from negmerge.training.job import TrainingJob, begun_with
from negmerge.training.pool import expand_grid
from negmerge.unlearning.context import Outcome

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
    said: dict[str, Any] = field(default_factory=dict)  # what models say to some rows, where asked for
    evidence: dict[str, Any] = field(default_factory=dict)  # `evidence` and `verdict` of the results, where asked for
    shown: dict[str, Any] | None = None  # what the page shows beside the scores; of the first seed alone


class SeedRun:
    """One seed of an experiment in its folder; `first` is the folder of the first seed, for all others."""

    def __init__(
        self, place: RunDir, config: RunConfig, material: Material, seed: int, first: Path | None = None
    ) -> None:
        self.place, self.config, self.material, self.seed, self.first = place, config, material, seed, first
        self.trainer = Trainer(place, config, material, seed)
        self.base, self.reference, self.keys = self.trainer.base, self.trainer.reference, self.trainer.keys
        self.projector = Projector(self.trainer)
        self.bench = Bench(
            material.task,
            material.parts,
            config.evaluation.membership,
            seed,
            material.device,
            config.evaluation.most,
            further_of(config, material),
            self.reference,
        )
        self.selector = Selector(
            material.task,
            material.parts,
            config.selection,
            seed,
            material.device,
            self.reference,
            material.split.kind,
        )
        self.contexts = Contexts(self.trainer, self.selector, self.projector)
        for method in config.methods:
            check_task(method.name, material.task)
        check_evidence_task(config.evidence, material.task)
        if config.evaluation.answers:
            need(material.task, Answers, "evaluation: answers")
        check_shadows(config, judged_row(config))
        policies = [config.buffers, *(method.buffers for method in config.methods)]
        if any(p not in (None, "keep") for p in policies) and not has_statistics(material.task.template()):
            raise InputError(f"buffers: {material.about.family} has no running statistics to change; use keep")

    def finish(self) -> Finished:
        """Do whatever is not done, in order, and return all results."""
        with self.place.stage("base"):
            self.trainer.make_originals()
            self.ground = self._ground()
        with self.place.stage("pool"):
            members, pool = self._make_pool()
        for one in warn_of_chance(pool["consensus"], pool["chance"], len(members)):
            self.place.emit("note", text=f"warning: {one['name']}: {one['text']}; {one['advice']}")
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
        said = self._say() if place == 0 and self.config.evaluation.answers else {}
        facts = [{**job.facts(), "name": job.name} for job in members]
        shown = None
        if place == 0:
            with self.place.stage("examples"):
                shown = self._show(members)
        return Finished(base, reference, pool, facts, methods, left_out, said, shown=shown)

    def _show(self, members: list[TrainingJob]) -> dict[str, Any]:
        """Return what the page shows of the judged row: its answers beside those of base and Retrain, and its vector.

        And every member alone, where a row has tried them.
        """
        row = judged_row(self.config)
        model = self.place.path / "methods" / row / "model.safetensors"
        vector = self.place.private / "methods" / row / "merged.safetensors"
        each = next((m for m in self.config.methods if describe(m.name).each_member), None)
        file = self.place.path / "shown.json"
        tried = None if each is None else self.keys.get(f"shared {self.contexts.shared(each).name}")
        self._keep("shown", [row, self.keys.content(model), self.reference and self.keys.content(self.reference),
                             tried, self.ground], file)  # fmt: skip
        if not file.exists():
            models = Models(self.base, model, self.reference)
            found = show_answers(self.material, models, self.seed)
            found["matrix"] = show_matrix(vector) if vector.exists() else None
            found["lottery"] = [] if each is None else show_lottery(self.contexts.make(each, members, 0.0))
            write_json(file, {"method": row, **found})
        shown: dict[str, Any] = read_json(file)
        return shown

    def _say(self) -> dict[str, Any]:
        """Return what base, judged row and reference say to the first forget and retain rows, by themselves."""
        task, count, file = self.material.task, self.config.evaluation.answers, self.place.private / "said.json"
        assert isinstance(task, Answers)
        models = {"before": self.base, "after": self.judged, "reference": self.reference}
        there = {name: path for name, path in models.items() if path is not None}
        self._keep("said", [count, [self.keys.content(path) for path in there.values()], self.ground], file)
        if not file.exists():
            parts = {part: self.material.parts[part][:count] for part in ("forget", "retain")}
            rows, found = torch.cat(list(parts.values())), [{"part": p} for p, own in parts.items() for _ in own]
            for name, path in there.items():
                said = task.answers(task.open(path, self.material.device), rows)
                for one, (prompt, right, answer) in zip(found, said, strict=True):
                    one |= {"prompt": prompt, "right": right, name: answer}
            write_json(file, {"method": judged_row(self.config), "rows": found})
        whole: dict[str, Any] = read_json(file)
        return whole

    def judge(self, finished: Finished, runs: "Sequence[SeedRun]") -> dict[str, Any]:
        """Return what the tests of the claim find, and the verdict; nothing where none is asked for.

        `finished` is what this seed found; `runs` are all seeds, this one among them, each finished.
        """
        if not self.config.evidence.tests:
            return {}
        with self.place.stage("evidence"):
            scores = {"base": finished.base, "model": finished.methods[judged_row(self.config)]}
            return self._evidence(scores, runs if asks_for_seeds(self.config) else ())

    @property
    def judged(self) -> Path:
        """The checkpoint of the row whose claim is tested; a row of fewer seeds is not there in all."""
        return self.place.path / "methods" / judged_row(self.config) / "model.safetensors"

    def _evidence(self, scores: dict[str, dict[str, Any]], runs: "Sequence[SeedRun]") -> dict[str, Any]:
        controls = make_controls(self.trainer)
        files = [file for file in (file_of(test.name) for test in self.config.evidence.tests) if file is not None]
        models = [self.keys.content(path) for path in (self.judged, self.reference, *controls) if path is not None]
        asked: list[Any] = [self.config.evidence.model_dump(mode="json"), [hash_file(file) for file in files]]
        seeds = self._seeds(runs, controls)
        if seeds is not None:
            made = ((run, path) for run in runs for path in (run.reference, run.judged) if path and path.exists())
            asked += [[run.ground for run in runs], [run.keys.content(path) for run, path in made]]
        found = self.place.path / "evidence" / "scores.json"
        self._keep("evidence", [asked, models, self.ground], found)
        if not found.exists():
            write_json(found, gather(self.trainer, self.judged, controls, scores, seeds, self._shadows()))
        evidence: dict[str, Any] = read_json(found)
        return evidence

    def _shadows(self) -> Callable[[int], Shadows] | None:
        """Return what makes models as the judged one was made; None where no test asks for them."""
        if not asks_for_shadows(self.config):
            return None
        row = judged_row(self.config)
        method = next(one for one in self.config.methods if one.row == row)
        return ShadowMaker(self.trainer, method, read_json(self.judged.parent / "outcome.json")).make

    def _seeds(self, runs: "Sequence[SeedRun]", controls: Sequence[Path]) -> Seeds | None:
        """Return the models of all seeds; None unless each has a base and a Retrain of its own."""
        reference = self.config.reference
        if not runs or self.config.base.train is None or reference is None or reference.train is None:
            return None
        retrained = [run.reference for run in runs if run.reference is not None]
        judged = tuple(run.judged for run in runs if run.judged.exists())
        return Seeds(tuple(run.base for run in runs), (*retrained, *controls), judged)

    def _seconds(self, name: str) -> dict[str, Any]:
        """Return the training time of base or reference; nothing is known of one that was given."""
        file = self.place.path / name / "training.json"
        return {"seconds": read_json(file)["seconds"] if file.exists() else None}

    def _ground(self) -> dict[str, Any]:
        """Return what every model and number of this seed hangs on: base, rows, data and seed, as hashes."""
        config, base = self.config.resolved(), self.keys.content(self.base)
        reference = self.reference
        if reference is not None:
            self.keys.content(reference)
        how = {key: config[key] for key in HOW if key in config}
        return {"base": base, "split": self.material.split.hash(), "seed": self.seed, **how}

    # pool

    def _make_pool(self) -> tuple[list[TrainingJob], dict[str, Any]]:
        folder = self.place.private / "pool"
        members = expand_grid(self.config.pool.train, self.config.pool.grid)
        wanted = [self.trainer.member_job(m, folder / m.name) for m in members]
        begun = {place: begun_with(place) for place in sorted(folder.glob("*/"))}
        trained = self.trainer.train_members([_taken_over(job, begun) for job in wanted])
        standing, diverged = trained.standing, trained.diverged
        self.members = {job.name: self.keys.content(job.checkpoint) for job in standing}
        facts_file = self.place.path / "pool.json"
        self._keep("pool", {"members": self.members, "diverged": diverged, **self.ground}, facts_file)
        if not facts_file.exists():
            found = inspect_checkpoints(self.base, [job.checkpoint for job in standing]).as_json()
            facts = {key: found[key] for key in ("consensus", "chance", "zero_share", "cosine", "advice")}
            facts["mean_cosine"] = mean_cosine(found["cosine"])
            facts["standing"] = [
                {**one, "member": job.name} for job, one in zip(standing, found["health"], strict=True)
            ]
            checkpoints = {job.name: job.checkpoint for job in standing}
            moved = moved_statistics(self.base, checkpoints)
            task, forget = self.material.task, self.material.parts["forget"]
            facts["health"] = pool_health(task, forget, self.base, checkpoints, self.material.device, moved)
            facts["statistics_moved"] = moved
            facts |= {"diverged": diverged} if diverged else {}
            write_json(facts_file, {**facts, "workers": trained.workers, "seconds": trained.seconds})
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
        alone = MethodConfig(name=SHARED_BY, buffers=method.buffers, projection=method.projection)
        own = method_parts(self.config, alone, self.ground, members, reference, None)
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
        place = self.config.seeds.index(self.seed)
        consensus = (m for m in self.config.methods if m.name == "consensus" and not (m.seeds and place >= m.seeds))
        method = next(consensus)
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
        write_state_dict(target, self.selector.weights_at(self.base, outcome.vector, outcome.selection.alpha, buffers))

    def _scores(self, name: str, checkpoint: Path) -> dict[str, Any]:
        file = self.place.path / name / "scores.json"
        files = [file for file in map(file_of, self.config.evaluation.scores) if file is not None]
        of = [self.config.evaluation.model_dump(mode="json", exclude={"answers"}), [hash_file(file) for file in files]]
        if self.reference and any(need.role == "reference" for score in self.bench.further for need in score.needs):
            of.append(self.keys.content(self.reference))
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
