"""A pool of unlearning runs: vectors of random-label, SalUn or other runs, merged and added."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from negmerge.checkpoints import hash_file
from negmerge.errors import InputError
from negmerge.seeding import derive_seed
from negmerge.tasks.task import need
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.displacing import write_displaced
from negmerge.unlearning.merge_choice import MergeChoice
from negmerge.unlearning.method import Method, Passes, method_of, passes_of
from negmerge.unlearning.negation import negate

KIND = "select"
NEEDS = ("forget", "retain")
SUMMARY = "train several unlearning runs, merge their changes, and add the merged vector"
REFERENCE = "two unlearning runs merged by TIES: Xu et al., SemEval 2025, task 4 (arXiv 2503.21088)"


class Settings(MergeChoice):
    """Which runs make the pool, and how it is merged."""

    run: str = Field("random-labels", description="the unlearning method that is run: random-labels, salun, npo, …")
    run_settings: dict[str, Any] = Field(
        default_factory=lambda: {"retain": False}, description="settings that all runs have"
    )
    grid: dict[str, list[Any]] = Field(
        default_factory=lambda: {"lr": [0.001, 0.01]}, description="settings that they differ in; every combination"
    )
    epochs: int = Field(10, ge=1, description="passes of each run over its rows")
    repeats: int = Field(2, ge=1, le=20, description="runs of each combination, with batches and labels of their own")
    method: str = Field("consensus", description="a merge method of `negmerge list methods`")

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        method = _method(self.run)
        empty = [key for key, values in self.grid.items() if not values]
        if empty:
            raise InputError(f"grid.{empty[0]}: give a list of at least one value")
        for one in self.each():
            method.Settings(**one)
        return self

    def each(self) -> Iterator[dict[str, Any]]:
        """Yield the settings of each combination; the last one varies fastest."""
        for values in itertools.product(*self.grid.values()):
            yield {"epochs": self.epochs, **self.run_settings, **dict(zip(self.grid, values, strict=True))}


def needs(settings: Settings) -> tuple[str, ...]:
    """Return the data that the runs use with these settings."""
    method = _method(settings.run)
    if method.needs is None:
        return method.NEEDS
    return tuple(dict.fromkeys(need for one in settings.each() for need in method.needs(method.Settings(**one))))


def passes(settings: Settings, rows: Mapping[str, int]) -> Passes:
    """Return the rows that all runs pass through the model, which rows of the table with the same runs share."""
    method = _method(settings.run)
    each = [passes_of(method, method.Settings(**one), rows) for one in settings.each()]
    trained, evaluated = (sum(numbers) for numbers in zip(*((p.trained, p.evaluated) for p in each), strict=True))
    return Passes(0, evaluated=settings.repeats * evaluated, shared=settings.repeats * trained)


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 1


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Train the runs, merge their changes uᵢ = θᵢ − θ₀, and return θ₀ + α·merge(u₁ … u_N).

    Every run starts at the base; seed k draws batches and labels anew. The merge sees −uᵢ, so that what is negated, in
    search, table and checkpoint, is an addition; a projection and the policy for buffers are those of the row. Rows
    with the same runs share them, whatever they merge them by. Finished runs are read back, an interrupted one goes on
    as the method does. The training of all runs counts as the pool's.

    Raises InputError where the task lacks what the runs require; NegmergeError where a run diverges.

    Source: arXiv 2503.21088, which merges two runs by TIES.
    """
    method = _method(settings.run)
    for capability in method.REQUIRES:
        need(context.data.task, capability, f"unlearning-pool with {settings.run}")
    folder = context.common / f"unlearning-runs-{_made_of(context, settings)[:16]}"
    mirrored: list[Path] = []
    spent = 0.0
    for number, one in enumerate(settings.each()):
        for seed in range(settings.repeats):
            place = folder / f"run-{number:03d}-{seed}"
            data = replace(context.data, seed=derive_seed(context.data.seed, "run", seed))
            found = method.unlearn(replace(context, directory=place / "run", data=data), method.Settings(**one))
            assert found.checkpoint is not None
            spent += sum(found.seconds.values())
            mirrored.append(place / "mirrored" / "model.safetensors")
            if not mirrored[-1].exists():
                mirrored[-1].parent.mkdir(parents=True, exist_ok=True)
                write_displaced(mirrored[-1], context.base, [(-1.0, found.checkpoint)])
    there = replace(context, pool_seconds=spent)
    outcome = negate(there, settings.method, settings.settings, mirrored, "merged")
    return replace(outcome, facts={**outcome.facts, "runs": len(mirrored), "added": True})


def _method(name: str) -> Method:
    """Return the unlearning method of the runs. Raises InputError for one that does not train on from the base."""
    found = method_of(name)
    if found.KIND != "train" or found.SCRATCH:
        raise InputError(f"{name} does not train on from the base; a pool is made of runs that do, such as salun")
    return found


def _made_of(context: Context, settings: Settings) -> str:
    """Return a hash of everything that the runs hang on: base, rows, settings and seeds."""
    data = context.data
    found = sha256(hash_file(context.base).encode())
    asked = [settings.run, list(settings.each()), data.seed, data.augment, data.device, data.task.rows().fingerprint()]
    found.update(json.dumps(asked, sort_keys=True).encode())
    for rows in (data.forget, data.retain):
        found.update(rows.numpy().tobytes())
    return found.hexdigest()
