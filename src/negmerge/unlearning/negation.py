"""Merge, then choose α: what every method that negates a task vector does."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from negmerge.checkpoints import write_bytes_atomic
from negmerge.merging.engine import merge_vector
from negmerge.merging.merger import draws
from negmerge.unlearning.context import Context, Outcome


def negate(context: Context, method: str, settings: Mapping[str, Any], members: Sequence[Path], name: str) -> Outcome:
    """Merge `members` by a merge method and choose α for the result; files are called `name` in the method's folder.

    A method that draws does so by the run's seed. What was done before an interruption is taken over: the vector, and
    each evaluated α.
    """
    context.directory.mkdir(parents=True, exist_ok=True)
    vector = context.directory / f"{name}.safetensors"
    facts_file = context.directory / f"{name}.json"
    if not facts_file.exists():
        started = time.perf_counter()
        seed = context.seed if draws(method) else 0
        report = merge_vector(
            context.base, members, vector, method=method, settings=dict(settings), buffers=context.buffers, seed=seed
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
    selection = context.choose(vector, context.directory / f"{name}.curve.json")
    merge_seconds = facts.pop("seconds")
    return Outcome(
        vector=vector,
        selection=selection,
        merge=facts,
        seconds={
            "pool": context.pool_seconds,
            "merge": merge_seconds,
            "selection": selection.seconds,
        },
    )
