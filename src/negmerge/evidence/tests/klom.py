"""Over many models of either kind: do margins of unlearned ones spread as those of retrained ones do?"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from negmerge.evidence.margins import observe_margins
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Role, read_scale, unread
from negmerge.evidence.subject import Subject
from negmerge.tasks.task import RowOutputs

SUMMARY = "KL of the margins of each row over the models of all seeds, unlearned against retrained; their spread"
REQUIRES = (RowOutputs,)
COLUMNS = ("correct",)
WEIGHT = "description"  # of the method, not of the one model that is judged
SEEDS = True
REFERENCE = "Georgiev et al., Attribute-to-Delete: Machine Unlearning via Datamodel Matching, 2024 (arXiv 2410.23232)"
PARTS = ("forget", "retain", "validation")
KINDS = ("base", "retrained", "unlearned")
OF_ROLE: dict[Role, str] = {"base": "base", "reference": "retrained", "model": "unlearned"}
CLIP, FLOOR = 100.0, 1e-5
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Settings(EvidenceSettings):
    """How many models are enough."""

    least: int = Field(
        20, ge=4, description="models of either kind, each from a seed of its own; the benchmark has 100"
    )
    bins: int = Field(20, ge=2, description="of the histogram of a row's margins")


def klom(unlearned: Tensor, retrained: Tensor, bins: int = 20) -> Tensor:
    """Return KL(unlearned ‖ retrained) of each row in nat, float64 [n], of margins [models, n] each.

    Margins are held between −100 and 100. Of each row both sides have `bins` equal bins over their joint range; shares
    are at least 1e-5 and then brought to sum 1. A row whose margins are all equal has 0.

    >>> klom(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])).item()
    0.0
    """
    both = torch.cat([unlearned, retrained]).double().clamp(-CLIP, CLIP)
    low, high = both.amin(0), both.amax(0)
    width = torch.where(high > low, high - low, 1.0)
    place = ((both - low) / width * bins).long().clamp(0, bins - 1)

    def shares(rows: Tensor) -> Tensor:
        counts = torch.stack([(rows == one).double().mean(0) for one in range(bins)]).clamp_min(FLOOR)
        return counts / counts.sum(0)

    p, q = shares(place[: len(unlearned)]), shares(place[len(unlearned) :])
    return (p * (p.log() - q.log())).sum(0)


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the models of all seeds."""
    return Cost(evaluated=3 * rows["seeds"] * sum(rows[part] for part in PARTS))


def run(subject: Subject, settings: Settings) -> Found:
    """Compare the margins of many unlearned models with those of many retrained ones, row by row.

    The models are those of the seeds of a run, each with a base and a Retrain of its own, and the further Retrains.
    Score: `klom` of the forget rows; its range is that of one bin against another, ln(1 / 1e-5). Fewer models fill
    fewer bins, so that KL depends on their number: every second model of each kind, bases, retrained and unlearned, is
    compared with the other half of the retrained ones, which is what Retrain has against itself. Facts: how many models
    there are; the quantiles over the rows of each part, of all bases and unlearned models against all retrained ones,
    and of the two halves; `halves`, the means of the three at half the number; and `spread`: the accuracy of each kind
    on each part, with its deviation over the seeds.
    """
    if subject.seeds is None:
        why = "the base was given, so that there is one alone: models of other seeds have it in common"
        return Found((unread("KLOM", why),), "There are no models with bases of their own.")
    models: dict[str, Sequence[Path]] = {
        "base": subject.seeds.bases,
        "retrained": subject.seeds.retrained,
        "unlearned": subject.seeds.unlearned,
    }
    found = {(kind, part): _seen(subject, models[kind], part) for kind in KINDS for part in PARTS}
    facts: dict[str, Any] = {
        "models": {kind: len(models[kind]) for kind in KINDS},
        "spread": {part: {kind: _spread(found[kind, part][1]) for kind in KINDS} for part in PARTS},
    }
    short = [f"{len(models[kind])} {kind}" for kind in KINDS if len(models[kind]) < settings.least]
    spread = facts["spread"]["forget"]
    text = (
        f"Over {len(models['unlearned'])} seed(s) {_shown(spread['unlearned'])} of the forgotten rows are right "
        f"(Retrain {_shown(spread['retrained'])})"
    )
    if short:
        why = f"{settings.least} models of each kind are needed; there are {' and '.join(short)}"
        return Found((unread("KLOM", why),), f"{text}.", facts)
    halves: dict[str, dict[Role, Tensor]] = {}
    for part in PARTS:
        margins = {kind: found[kind, part][0] for kind in KINDS}
        other = margins["retrained"][1::2]
        halves[part] = {role: klom(margins[kind][::2], other, settings.bins) for role, kind in OF_ROLE.items()}
        whole = {
            "base": klom(margins["base"], margins["retrained"], settings.bins),
            "reference": halves[part]["reference"],
            "model": klom(margins["unlearned"], margins["retrained"], settings.bins),
        }
        facts[part] = {
            role: values.quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
            for role, values in whole.items()
            if len(values)
        }
    facts["halves"] = {
        part: {role: float(values.mean()) for role, values in by_role.items() if len(values)}
        for part, by_role in halves.items()
    }
    reading = read_scale("KLOM", halves["forget"], span=math.log(1 / FLOOR))
    text += (
        f"; KL of the margins of half of them from those of half of the retrained is {reading.model:.2f} nat (the "
        f"other half of the retrained {reading.reference:.2f}, half of the bases {reading.base:.2f})."
    )
    return Found((reading,), text, facts)


def _seen(subject: Subject, models: Sequence[Path], part: str) -> tuple[Tensor, Tensor]:
    """Return margins [models, n] and accuracies [models], in percent, of models on the rows of a part."""
    rows = subject.rows(part)
    found = [subject.once((path, "margins", part), partial(_of_one, subject, path, rows)) for path in models]
    return torch.stack([margins for margins, _ in found]), torch.stack([right for _, right in found])


def _of_one(subject: Subject, path: Path, rows: Tensor) -> tuple[Tensor, Tensor]:
    model = subject.task.open(path, subject.device)
    return observe_margins(subject, model, rows), subject.known(model, rows).mean()


def _spread(accuracies: Tensor) -> dict[str, float | None]:
    deviation = float(accuracies.std(correction=1)) if len(accuracies) > 1 else None
    ends = {"least": float(accuracies.min()), "most": float(accuracies.max())}
    return {"mean": float(accuracies.mean()), "deviation": deviation, **ends}


def _shown(spread: Mapping[str, float | None]) -> str:
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation']:.1f}"
    return f"{spread['mean']:.1f}{deviation} %"
