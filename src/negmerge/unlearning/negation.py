"""Merge, then choose α: what every method that negates a task vector does."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.merging.merger import draws
from negmerge.selection import Selection
from negmerge.unlearning.context import Context, Outcome, Projecting, lasting_json


def negate(context: Context, method: str, settings: Mapping[str, Any], members: Sequence[Path], name: str) -> Outcome:
    """Merge `members` by a merge method and choose α for the result; files are called `name` in the method's folder.

    What was done before an interruption is taken over: the vector, and each evaluated α.
    """
    merged = merge(context, method, settings, members, name)
    return choose(context, merged, {"pool": context.pool_seconds})


@dataclass(frozen=True)
class MergedVector:
    """A merged vector in a file, what the merge reports of it, and the seconds that it took."""

    file: Path
    facts: dict[str, Any]
    seconds: float


def merge(
    context: Context,
    method: str,
    settings: Mapping[str, Any],
    members: Sequence[Path],
    name: str,
    *,
    origin: Path | None = None,
    weights: Path | None = None,
) -> MergedVector:
    """Merge the task vectors of `members`, those of `origin` where it is given, each element times its weight.

    A method that draws does so by the run's seed. A vector that is there already is taken over.
    """
    from negmerge.merging.engine import merge_vector

    context.directory.mkdir(parents=True, exist_ok=True)
    vector = context.directory / f"{name}.safetensors"
    facts_file = context.directory / f"{name}.json"
    if not facts_file.exists():
        started = time.perf_counter()
        report = merge_vector(
            context.base,
            members,
            vector,
            method=method,
            settings=dict(settings),
            origin=origin,
            weights=weights,
            include=context.include,
            exclude=context.exclude,
            buffers=context.buffers,
            seed=context.seed if draws(method) else 0,
        )
        facts = {
            "consensus": report.consensus,
            "kept": report.kept,
            "merged_elements": report.merged_elements,
            "layers": [{"name": t.name, "elements": t.elements, "kept": t.kept} for t in report.tensors],
            "seconds": time.perf_counter() - started,
        }
        write_bytes_atomic(facts_file, json.dumps(facts).encode())
    facts = json.loads(facts_file.read_text())
    return MergedVector(vector, facts, facts.pop("seconds"))


def choose(context: Context, merged: MergedVector, seconds: Mapping[str, float]) -> Outcome:
    """Choose α for a merged vector, projected first where the row is; `seconds` are what its members took, by part."""
    spent = {**seconds, "merge": merged.seconds}
    if context.projecting is not None:
        return _projected(context, context.projecting, merged.file, merged.facts, spent)
    selection = context.choose(merged.file, merged.file.with_suffix(".curve.json"))
    spent["selection"] = selection.seconds
    return Outcome(vector=merged.file, selection=selection, merge=merged.facts, seconds=spent)


def _projected(
    context: Context, projecting: Projecting, vector: Path, merge: dict[str, Any], seconds: dict[str, float]
) -> Outcome:
    """Project a vector by every strength, choose α for each, and return the best by the run's objective.

    Equals go to the smaller strength. The time of all strengths counts, and that of the moments.
    """
    tried: list[tuple[float, Path, Selection, dict[str, Any]]] = []
    spent, name = 0.0, vector.stem
    for strength in projecting.strengths:
        target = context.directory / f"{name}.strength-{strength:g}.safetensors"
        done_file = target.with_suffix(".json")
        if not done_file.exists():
            started = time.perf_counter()
            done = projecting.project(vector, target, strength)
            done["seconds"] = time.perf_counter() - started
            write_bytes_atomic(done_file, json.dumps(done).encode())
        done = json.loads(done_file.read_text())
        spent += done.pop("seconds")
        selection = context.choose(target, context.directory / f"{name}.strength-{strength:g}.curve.json")
        tried.append((strength, target, selection, done))
    _, target, selection, done = min(tried, key=lambda one: context.rank(one[2].scores))
    strengths = [{"strength": s, "alpha": found.alpha, **found.scores} for s, _, found, _ in tried]
    lasting = lasting_json([(strength, found) for strength, _, found, _ in tried])
    return Outcome(
        vector=target,
        selection=selection,
        merge={**merge, "projection": {**done, "strengths": strengths}},
        facts={"lasting": lasting} if lasting else {},
        seconds={
            **seconds,
            "moments": projecting.seconds,
            "projection": spent,
            "selection": sum(found.seconds for _, _, found, _ in tried),
        },
    )
