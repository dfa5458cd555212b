"""How far any merge of a pool could go: coefficients by member, layer or tensor, found with the oracle."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from negmerge.checkpoints import write_state_dict
from negmerge.experiment.choices import Recalibrate
from negmerge.experiment.rundir import read_json, write_json
from negmerge.experiment.stages import SeedRun
from negmerge.seeding import derive_seed
from negmerge.training.job import TrainingJob
from negmerge.unlearning.span import Span, likeness_loss, margins, sample

BATCH, RATE, START, WEIGHT = 64, 0.15, 8.0, 0.5


def bound(seed: SeedRun, members: Sequence[TrainingJob], by: str, steps: int) -> dict[str, Any]:
    """Return, for coefficients by member, layer or tensor, the gap of the best step that was found in the pool's span.

    Coefficients minimise, by Adam, ½ · the distance of the sorted forget margins to Retrain's on the same rows, plus
    cross-entropy on retain rows and KL(Retrain ‖ model) on validation rows (`likeness_loss`), on the rows that
    selection sees; batch normalisation uses the batch's statistics where they are estimated again after a merge. Then
    α is searched as for any vector, by the gap. `seen` is that gap, on those very rows; `reported` what the model does
    on all rows. It is what descent found with the oracle, not a proof: a row that is better says so.
    """
    assert seed.reference is not None
    task, parts, config = seed.material.task, seed.selector.parts, seed.config
    folder = seed.place.private / "bound"
    vector, done = folder / f"{by}.safetensors", folder / f"{by}.json"
    again = isinstance(config.buffers, Recalibrate)
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        span = Span(
            task, seed.base, [job.checkpoint for job in members], seed.material.device, by=by, own_statistics=again
        )
        oracle = Span(task, seed.reference, [seed.base], seed.material.device, by="member")
        rows = [parts[part] for part in ("forget", "retain", "validation")]
        (known, labels), (unseen, _) = (oracle.base_outputs(part) for part in (rows[0], rows[2]))
        goal = margins(known, labels)
        generator = torch.Generator().manual_seed(derive_seed(seed.seed, "bound"))

        def loss(coefficients: Tensor, step: int) -> Tensor:
            at = [sample(torch.arange(len(part)), BATCH, generator) for part in rows]
            logits, right = span.outputs(
                coefficients, torch.cat([part[own] for part, own in zip(rows, at, strict=True)])
            )
            aim = unseen[at[2].to(unseen.device)].log_softmax(1)
            return likeness_loss(logits, right, (len(at[0]), len(at[1]), len(at[2])), goal, aim, WEIGHT)

        losses = span.minimise(loss, start=START / len(members), steps=steps, lr=RATE)
        write_state_dict(vector, span.vector())
        write_json(done, {"coefficients": span.coefficients.numel(), "losses": [losses[0], losses[-1]]})
    chosen = seed.selector.choose(seed.base, vector, folder / f"{by}.curve.json", _silent, buffers=config.buffers)
    model, scores = folder / f"{by}.model.safetensors", folder / f"{by}.scores.json"
    if not scores.exists():
        write_state_dict(model, seed.selector.weights_at(seed.base, vector, chosen.alpha, config.buffers))
        write_json(scores, seed.bench.full_scores(model))
    return {
        "by": by,
        **read_json(done),
        "alpha": chosen.alpha,
        "seen": chosen.scores["gap"],
        "reported": _with_gap(seed, read_json(scores)),
    }


def _with_gap(seed: SeedRun, scores: dict[str, Any]) -> dict[str, Any]:
    from negmerge.scores import average_gap

    assert seed.reference is not None
    file = seed.place.private / "bound" / "reference.json"
    if not file.exists():
        write_json(file, seed.bench.full_scores(seed.reference))
    names = [score.name for score in seed.bench.scores if score.in_gap]
    found = {name: scores[name] for name in names}
    return {**found, "gap": average_gap(scores, read_json(file), names).total}


def _silent(alpha: float, scores: dict[str, float]) -> None:
    pass
