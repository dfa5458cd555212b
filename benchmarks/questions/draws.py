"""A draw of the forget set with a base, a Retrain model and a pool of its own, and what any merge of members comes to.

Everything that is measured is kept in the draw's folder, by the hash of what was asked: a member is trained once, a
merge is measured once, whichever question asks.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pool_of_run import open_pool_of_run

from negmerge.checkpoints import hash_file, read_state_dict, write_bytes_atomic, write_state_dict
from negmerge.experiment.config import load_config
from negmerge.experiment.rundir import RunDir
from negmerge.merging.engine import merge_vector
from negmerge.merging.method import load_method
from negmerge.projection import MomentRows, Moments, Projection, project_vector, write_moments
from negmerge.scores import average_gap
from negmerge.seeding import derive_seed

BATCH = 50
MOMENT_ROWS = 600
KEPT = ("forget", "retain", "test", "membership")

Row = dict[str, Any]


class Draw:
    """One draw: `number` is the seed of its forget set, its base and its members."""

    def __init__(self, path: Path, changes: Sequence[str], folder: Path, number: int) -> None:
        own = [*changes, f"data.seed={number}", f"seeds=[{number}]"]
        self._begin(path, own, folder / f"draw-{number}", number)
        self.work = self.place.private / "questions"

    def _begin(self, path: Path, changes: Sequence[str], place: Path, number: int) -> None:
        self.path, self.changes, self.place, self.number = path, changes, RunDir(place), number
        self.config = load_config(path, changes)
        self.material, self.run, self.members = open_pool_of_run(self.place, self.config)

    def kept(self, name: str, asked: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, from the file of this name and question where it was made before."""
        key = sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]
        file = self.work / name / f"{key}.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(file, json.dumps(make()).encode())
        return json.loads(file.read_text())

    @cached_property
    def reference(self) -> Row:
        """The reported scores of the Retrain model."""
        path = self.run.reference
        assert path is not None
        return self._scores(path)

    @cached_property
    def base(self) -> Row:
        """The reported scores of the base: what doing nothing comes to."""
        return self.scored(self.run.base)

    def scored(self, path: Path) -> Row:
        """Return the reported scores of a model, and its gap to Retrain."""
        return self._with_gap(self._scores(path))

    def _scores(self, path: Path) -> Row:
        return self.kept("scores", hash_file(path), lambda: self.run.bench.full_scores(path))

    def _with_gap(self, scores: Row) -> Row:
        names = [score.name for score in self.material.task.scores if score.in_gap]
        return {**{key: scores[key] for key in KEPT}, "gap": average_gap(scores, self.reference, names).total}

    def row(
        self,
        members: Mapping[str, Path],
        method: str,
        settings: Mapping[str, Any] | None = None,
        strength: float | None = None,
    ) -> Row:
        """Return what the merge of some members comes to: α chosen anew, and the reported scores.

        `kept` is the share of elements that the method kept, `strength` that of a retain projection.
        """
        of = [sorted(hash_file(path) for path in members.values()), method, dict(settings or {}), strength]
        return self.kept("rows", [of, self.ground], lambda: self._measure(members, method, settings or {}, strength))

    @cached_property
    def ground(self) -> str:
        """What every row hangs on beside its members: base, rows, and how α is chosen and scores are measured.

        Settings that are left at their defaults are not named, so that one that is added to negmerge changes nothing.
        """
        parts = (self.config.selection, self.config.evaluation)
        how = [part.model_dump(mode="json", exclude_defaults=True) for part in parts]
        buffers = self.config.resolved()["buffers"]
        return sha256(json.dumps([self.run.ground, how, buffers], sort_keys=True, default=str).encode()).hexdigest()

    def vector(self, members: Mapping[str, Path], method: str, settings: Mapping[str, Any], target: Path) -> float:
        """Write the merged vector of some members, and return the share of elements that the method kept."""
        target.parent.mkdir(parents=True, exist_ok=True)
        seed = self.number if load_method(method).random else 0
        found = merge_vector(self.run.base, list(members.values()), target, method=method, settings=settings, seed=seed)
        return sum(one.kept for one in found.tensors) / max(1, sum(one.elements for one in found.tensors))

    def _measure(self, members: Mapping[str, Path], method: str, settings: Mapping[str, Any], strength: Any) -> Row:
        name = sha256(repr((self.ground, sorted(members), method, settings, strength)).encode()).hexdigest()[:16]
        folder = self.work / "scratch" / name
        vector, model = folder / "vector.safetensors", folder / "model.safetensors"
        kept = self.vector(members, method, settings, vector)
        buffers = self.config.buffers
        if strength is not None:
            with Moments(self.moments()) as moments:
                project_vector(Projection(moments, strength), vector, folder / "projected.safetensors")
            vector = folder / "projected.safetensors"
        selector = self.run.selector
        chosen = selector.choose(self.run.base, vector, folder / "curve.json", lambda *_: None, buffers=buffers)
        write_state_dict(model, selector.weights_at(self.run.base, vector, chosen.alpha, buffers))
        row = self._with_gap(self.run.bench.full_scores(model))
        for file in folder.iterdir():
            file.unlink()
        return {**row, "alpha": chosen.alpha, "kept": kept, "members": len(members), "points": len(chosen.curve)}

    def moments(self) -> Path:
        """Return the file of the second moments of every layer's inputs, on forget and on retain rows."""
        path, task, device = self.work / "moments.safetensors", self.material.task, self.material.device
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = {part: self.sample(part, MOMENT_ROWS, "moments") for part in ("forget", "retain")}

            def of(part: str) -> MomentRows:
                pieces = rows[part].split(BATCH)
                return MomentRows(lambda: (task.batch(piece, device) for piece in pieces), len(rows[part]), part)

            model, first = task.open(self.run.base, device), task.batch(rows["forget"][:2], device)
            write_moments(path, model, of("forget"), of("retain"), task.run_model, first, {})
        return path

    def sample(self, part: str, most: int, purpose: str) -> torch.Tensor:
        """Return at most so many rows of a part, seeded."""
        rows = self.material.parts[part]
        generator = torch.Generator().manual_seed(derive_seed(self.number, f"question {purpose} {part}"))
        return rows[torch.randperm(len(rows), generator=generator)[:most].sort().values]

    def order(self, number: int) -> list[str]:
        """Return the members' names in an order drawn by a number."""
        names = sorted(self.members)
        generator = torch.Generator().manual_seed(derive_seed(self.number, f"order {number}"))
        return [names[i] for i in torch.randperm(len(names), generator=generator).tolist()]

    def some(self, names: Sequence[str]) -> dict[str, Path]:
        """Return members by name."""
        return {name: self.members[name] for name in names}

    def trained(self, name: str, rows: torch.Tensor, settings: Mapping[str, Any], part: str | None = None) -> Path:
        """Return the base fine-tuned on some rows by settings that stand in for the pool's; trained once."""
        whole = self.settings(settings)
        job = self.run.trainer.job(
            name, self.work / "trained" / name, rows, whole, start=self.run.base, part=part or f"question {name}"
        )
        self.run.trainer.train([job], workers=1, threads=1)
        return job.checkpoint

    def settings(self, changes: Mapping[str, Any]) -> Any:
        """Return training settings: those of the pool, with changes."""
        pool = self.config.pool
        middle = {key: values[len(values) // 2] for key, values in (pool.grid or {}).items()}
        known = {
            **(pool.train if isinstance(pool.train, dict) else pool.train.model_dump(exclude_unset=True)),
            **middle,
        }
        from negmerge.training import TrainSettings

        return TrainSettings(**{**known, **changes})

    def delta(self, path: Path) -> dict[str, torch.Tensor]:
        """Return the task vector of a checkpoint, float64, of what merges: no running statistics."""
        base, own = read_state_dict(self.run.base), read_state_dict(path)
        weights = dict(self.material.task.template().named_parameters())
        return {name: own[name].double() - base[name].double() for name in weights}
