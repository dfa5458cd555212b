"""Should I just retrain? What retraining, SISA and the pool take for a request, and what can be claimed afterwards."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from negmerge.experiment.config import RunConfig
from negmerge.experiment.measure import further_of
from negmerge.experiment.prepare import Material
from negmerge.tasks.task import ACCURACY
from negmerge.unlearning.methods import sisa

FEW = 100  # rows, below which an attack's score is mostly chance


@dataclass(frozen=True)
class Speed:
    """Rows of training and of evaluation in a second, by all that work at a time."""

    alone: float
    pool: float
    evaluation: float


@dataclass(frozen=True)
class Way:
    """A way to answer a request: `minutes` (None where it is not known how long the model was trained), what for one
    epoch over the rows that stay, and what can be claimed."""

    name: str
    minutes: float | None
    epoch_minutes: float | None
    claim: str

    def as_json(self) -> dict[str, Any]:
        """Return the way as plain JSON values."""
        return asdict(self)


def ways(config: RunConfig, material: Material, speed: Speed, pool_rows: int, selection_rows: int) -> list[Way]:
    """Return the ways to answer the request of a config, the exact ones first.

    `pool_rows` pass through training for one pool, `selection_rows` through the model while α is chosen for one vector.
    The epochs of a training from scratch are those of the base, or of the reference, or not known.
    """
    kept, gone = len(material.split.retain), len(material.split.forget)
    scratch = config.scratch_settings()
    epochs = scratch.epochs if scratch else None
    epoch = kept / speed.alone / 60
    pool = (pool_rows / speed.pool + selection_rows / speed.evaluation) / 60
    once, again = _sisa(config, epochs or 1, kept, gone)
    exact = "exact: the model never sees the rows; nothing is to be proved but that they were left out"
    shards = (
        "exact, for an ensemble that was trained in shards from the start; "
        f"to begin with that takes {once / speed.alone / 60:.3g} minutes{'' if epochs else ' for each epoch'} more"
    )
    return [
        Way("retrain", None if epochs is None else epochs * epoch, epoch, exact),
        Way("sisa", None if epochs is None else again / speed.alone / 60, again / speed.alone / 60, shards),
        Way("pool", pool, None, claim_of(config, material)),
    ]


def claim_of(config: RunConfig, material: Material) -> str:
    """Return what a report of the pool's result will be able to say."""
    split, rule = material.split, config.selection
    gone, unseen = len(split.forget), len(split.validation)
    measured = material.task.MEASURE
    width = f" (to ± {_half_width(gone):.2g} points)" if measured == ACCURACY else ""
    said = [f"no proof, but measured: {measured} on the {gone:,} forgotten rows{width}"]
    if len(split.validation_forget):
        said.append(f"on {len(split.validation_forget):,} held-out rows of their kind")
    if rule.floor is not None:
        said.append(f"{100 * rule.floor:g} % of the {measured} on the others kept")
    if rule.objective == "match-holdout":
        said.append(f"forgotten rows look like {unseen:,} unseen ones")
    attacks: set[str | None] = {s.attack for s in material.task.scores if s.attack in config.evaluation.membership}
    attacks |= {score.attack for score in further_of(config, material) if score.attack}
    if attacks:
        tested = min(len(split.test), len(split.retain))
        few = f", too few rows for {'it' if len(attacks) == 1 else 'them'} to say much"
        many = "one membership attack" if len(attacks) == 1 else f"{len(attacks)} membership attacks"
        said.append(f"{many}{'' if min(tested, gone) >= FEW else few}")
    said.append("the gap to Retrain" if config.reference else "no gap to Retrain (reference: none)")
    return "; ".join(said)


def advice(found: list[dict[str, Any]]) -> str:
    """Return one sentence on which way to take.

    >>> advice([{"name": "retrain", "minutes": 2.0, "epoch_minutes": 1}, {"name": "pool", "minutes": 3.0}])
    'Retraining takes no longer than the pool, and is exact: just retrain.'
    """
    by_name = {way["name"]: way for way in found}
    retrain, pool = by_name["retrain"], by_name["pool"]
    if retrain["minutes"] is None:
        epochs = pool["minutes"] / retrain["epoch_minutes"]
        return f"The pool takes as long as {epochs:.3g} epochs over the rows that stay; if that trains it, retrain."
    if retrain["minutes"] <= pool["minutes"]:
        return "Retraining takes no longer than the pool, and is exact: just retrain."
    return f"Retraining takes {retrain['minutes'] / pool['minutes']:.2g} times as long as the pool."


def _sisa(config: RunConfig, epochs: int, kept: int, gone: int) -> tuple[float, float]:
    """Return the rows that SISA passes through training at first, and those that this request is expected to repeat.

    Step k of a shard (from 0) trains on its first k + 1 of R slices, for round(2e / (R + 1)) epochs; it is repeated
    where a forgotten row lies in one of them, with probability 1 − (1 − (k + 1) / (S·R))^n for n rows.
    """
    own = next((method.settings for method in config.methods if method.name == "sisa"), {})
    plain = {key: own[key] for key in ("shards", "slices") if isinstance(own.get(key), int)}
    settings = sisa.Settings(**plain)
    shards, slices = settings.shards, settings.slices
    rounds = max(1, round(2 * epochs / (slices + 1)))
    steps = [(k + 1) / slices * (kept + gone) * rounds for k in range(slices)]
    hit = [1 - (1 - (k + 1) / (shards * slices)) ** gone for k in range(slices)]
    return sum(steps), sum(step * share for step, share in zip(steps, hit, strict=True))


def _half_width(rows: int) -> float:
    """Return half the 95 % interval of an accuracy of one half, in percentage points."""
    return 196 * math.sqrt(0.25 / max(1, rows))
