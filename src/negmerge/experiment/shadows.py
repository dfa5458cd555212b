"""Shadow models: made as the judged row was, of bases that saw one half of the forget rows or the other."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from negmerge.checkpoints import write_state_dict
from negmerge.errors import NegmergeError
from negmerge.evidence.subject import Shadows
from negmerge.experiment.config import MethodConfig
from negmerge.experiment.contexts import Contexts
from negmerge.experiment.halves import Halves, deal_shadows
from negmerge.experiment.keys import digest
from negmerge.experiment.methods import run_method
from negmerge.experiment.projecting import Projector
from negmerge.experiment.rundir import RunDir, read_json, write_json
from negmerge.experiment.selecting import Selector
from negmerge.experiment.trainer import Trainer
from negmerge.seeding import derive_seed
from negmerge.selection import Selection
from negmerge.training.job import TrainingJob
from negmerge.unlearning.context import Context

AT_ONCE = 8  # shadows whose pools are on disk at a time: members are trained together, then merged and removed


@dataclass(frozen=True)
class ShadowMaker:
    """Makes shadow models of one row: `outcome` is what it chose, α and the strength of its projection."""

    trainer: Trainer
    method: MethodConfig
    outcome: Mapping[str, Any]

    def make(self, count: int) -> Shadows:
        """Return `count` shadow models: trained, unlearned and written, unless they are there.

        Each is trained as the base is, from a seed of its own, on its half and the retain rows; its pool is fine-tuned
        on the half, merged by the row's method and negated by the row's own α. Base and result stay; the pool goes.
        """
        trainer, halves = self.trainer, deal_shadows(self.trainer.material, count, self.trainer.seed)
        shadows = [Shadow(self, i, halves) for i in range(count)]
        bases = [shadow.base_job() for shadow in shadows]
        workers = min(count, trainer.config.workers or trainer.cores)
        trainer.train(bases, workers=workers, threads=max(1, trainer.threads // workers))
        open_ones = [shadow for shadow in shadows if not shadow.is_done]
        for first in range(0, len(open_ones), AT_ONCE):
            some = open_ones[first : first + AT_ONCE]
            members = [job for shadow in some for job in shadow.members]
            threads = 1 if trainer.material.task.SENT else trainer.threads
            trainer.train(members, workers=trainer.config.workers or trainer.cores, threads=threads)
            for shadow in some:
                shadow.unlearn()
                trainer.place.emit("shadow", number=shadow.number, of=count)
        for shadow in shadows:
            shadow.tidy()
        return Shadows(
            seen=halves.seen,
            bases=tuple(shadow.trainer.base for shadow in shadows),
            unlearned=tuple(shadow.unlearned for shadow in shadows),
            seconds=sum(read_json(shadow.facts_file)["seconds"] for shadow in shadows),
            about={
                "row": self.method.row,
                "alpha": self.outcome["alpha"],
                "rows_unlearned": [len(rows) for rows in halves.seen],
            },
        )

    @property
    def strength(self) -> float | None:
        """The strength of the projection that the row chose; None where it is not projected."""
        return None if self.method.projected is None else float(self.outcome["projection"]["strength"])


class Shadow:
    """One shadow model in its folder: a seed of the run by itself, whose forget rows are its half."""

    def __init__(self, maker: ShadowMaker, number: int, halves: Halves) -> None:
        run = maker.trainer
        self.maker, self.number = maker, number
        parts = {**run.material.parts, "forget": halves.seen[number], "retain": halves.retain}
        material = replace(run.material, parts=parts)
        place = RunDir(run.place.private / "shadows" / str(number))
        self.trainer = Trainer(place, run.config, material, derive_seed(run.seed, "shadow", number))
        self.unlearned = place.path / "unlearned" / "model.safetensors"
        self.facts_file = place.path / "shadow.json"

    def base_job(self) -> TrainingJob:
        """Return the job of its base; one of other rows or settings than what lies there is made anew."""
        trainer = self.trainer
        settings = trainer.config.base.train
        assert settings is not None
        rows = [trainer.material.parts[part] for part in ("retain", "forget")]
        job = trainer.job("base of a shadow", trainer.base.parent, torch.cat(rows).sort().values, settings)
        if not job.is_done:
            trainer.keys.forget(job.checkpoint)
        return job

    @cached_property
    def members(self) -> list[TrainingJob]:
        """The jobs of its pool; its base is there."""
        config, folder = self.trainer.config, self.trainer.place.private / "pool"
        grid = config.pool.members()
        jobs = [self.trainer.member_job(one, folder / one.name) for one in grid]
        return [replace(job, spare=True) for job in jobs]

    @property
    def is_done(self) -> bool:
        """Whether it was made before, of the same base, pool and choice."""
        if not (self.facts_file.exists() and self.unlearned.exists()):
            return False
        return bool(read_json(self.facts_file)["key"] == self._key)

    @cached_property
    def _key(self) -> str:
        maker = self.maker
        method = maker.method.model_dump(mode="json", exclude={"label", "seeds"})
        policy = maker.trainer.config.resolved()["buffers"]
        return digest([[job.key for job in self.members], method, policy, maker.outcome["alpha"], maker.strength])

    def unlearn(self) -> None:
        """Merge its pool, negate it by the row's α and write the result; what was made on the way goes."""
        trainer, maker = self.trainer, self.maker
        standing = [job for job in self.members if "diverged" not in job.facts()]
        if not standing:
            raise NegmergeError(f"every member of the pool of shadow {self.number} diverged")
        started = time.perf_counter()
        shutil.rmtree(trainer.place.private / "methods", ignore_errors=True)  # of another choice, or interrupted
        outcome = run_method(maker.method.name, maker.method.settings, self._context(standing))
        assert outcome.vector is not None
        weights = self._selector.weights_at(
            trainer.base, outcome.vector, maker.outcome["alpha"], trainer.config.buffers_of(maker.method)
        )
        self.facts_file.unlink(missing_ok=True)
        self.unlearned.parent.mkdir(exist_ok=True)
        write_state_dict(self.unlearned, weights)
        spent = [read_json(trainer.base.parent / "training.json"), *(job.facts() for job in self.members)]
        seconds = sum(facts["seconds"] for facts in spent) + time.perf_counter() - started
        write_json(self.facts_file, {"key": self._key, "members": len(standing), "seconds": seconds})
        shutil.rmtree(trainer.place.private)

    def tidy(self) -> None:
        """Remove what only tells what is done from what is not: base, result and facts stay."""
        shutil.rmtree(self.trainer.place.private)
        for name in ("keys.json", "events.jsonl"):
            (self.trainer.place.path / name).unlink(missing_ok=True)

    def _context(self, members: list[TrainingJob]) -> Context:
        """Return what the method is given: nothing is left to choose."""
        strength, alpha = self.maker.strength, self.maker.outcome["alpha"]
        context = Contexts(self.trainer, self._selector, Projector(self.trainer)).make(self.maker.method, members, 0.0)
        projecting = context.projecting
        if projecting is not None and strength is not None:
            projecting = replace(projecting, strengths=(strength,))
        return replace(
            context,
            choose=lambda vector, curve: Selection(alpha, {}, None, ()),
            rank=lambda scores: (),
            projecting=projecting,
        )

    @cached_property
    def _selector(self) -> Selector:
        run, material = self.maker.trainer, self.trainer.material
        return Selector(
            material.task,
            material.parts,
            run.config.selection,
            self.trainer.seed,
            material.device,
            run.reference,
            material.split.kind,
        )
