"""U-LiRA: can rows that were unlearned be told from rows that were never there, over many models of either kind?"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor

from negmerge.errors import DivergedError
from negmerge.evidence.margins import observe_margins
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Reading, Role, read_scale, unread, with_controls
from negmerge.evidence.subject import ROLES, Shadows, Subject
from negmerge.evidence.telling import found_at, shares_below
from negmerge.tasks.task import RowOutputs

SUMMARY = "likelihood ratio of each row over shadow models: unlearned against never seen (trains 34 of them)"
REQUIRES = (RowOutputs,)
COLUMNS = ("correct",)
WEIGHT = "description"  # of the recipe: its shadows are not the model that is judged
SHADOWS = True
REFERENCE = "Hayes et al., Inexact Unlearning Needs More Careful Evaluations, 2024 (arXiv 2403.01218)"
NAMES = ("U-LiRA AUC of the shadows", "found among the shadows at 1 % false alarms", "U-LiRA AUC of the model")
LEAST = 16  # models of either kind that a row's Normals are fitted to
RATE, FEW = 0.01, 10  # of false alarms; how many there must be
SMALLEST = 1e-6  # variance: rows that all models treat alike
ROWS = 4  # forget rows without which halves say nothing


class Settings(EvidenceSettings):
    """How many models are trained."""

    shadows: int = Field(
        2 * LEAST + 2, ge=6, description="models, in pairs; with fewer than 34 the attack is weaker, and says so"
    )

    @field_validator("shadows")
    @classmethod
    def _pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError("give an even number: shadow models come in pairs")
        return value


class Normals(NamedTuple):
    """Of each row the means of the margins of models that unlearned it and that never had it, and their variance."""

    seen: Tensor
    unseen: Tensor
    variance: Tensor


def fit_normals(margins: Tensor, inside: Tensor) -> Normals:
    """Return two Normals for each row, with one variance: Σ (φ − mean of its kind)² / (models − 2), 1e-6 at least.

    `margins` φ float64 [models, n]; `inside` bool [models, n]: the model had the row and unlearned it. Of each row
    there are models of both kinds, three in all at least.
    """
    seen = inside.double()
    means = [(margins * kind).sum(0) / kind.sum(0) for kind in (seen, 1 - seen)]
    from_means = torch.where(inside, margins - means[0], margins - means[1])
    variance = from_means.square().sum(0) / (len(margins) - 2)
    return Normals(means[0], means[1], variance.clamp_min(SMALLEST))


def log_ratio(margins: Tensor, normals: Normals) -> Tensor:
    """Return log N(φ; seen, variance) − log N(φ; unseen, variance), float64 as `margins` [..., n].

    >>> log_ratio(torch.tensor([2.0]), Normals(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([1.0]))).item()
    2.0
    """
    middle = (normals.seen + normals.unseen) / 2
    return (normals.seen - normals.unseen) * (margins - middle) / normals.variance


def held_out_ratios(margins: Tensor, inside: Tensor) -> Tensor:
    """Return the log ratios of each model by Normals that were fitted without it and its other half, [models, n].

    Models 2k and 2k + 1 are halves of each other, so that as many models of either kind are left for every row.
    """
    found = torch.empty_like(margins)
    for first in range(0, len(margins), 2):
        rest = torch.ones(len(margins), dtype=torch.bool)
        rest[first : first + 2] = False
        found[~rest] = log_ratio(margins[~rest], fit_normals(margins[rest], inside[rest]))
    return found


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that all shadow models are trained on, and the passes of the forget rows through them."""
    return Cost(trained=settings.shadows * rows["shadow"], evaluated=(2 * settings.shadows + 3) * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Attack shadow models by the likelihood ratio of each forget row: was it unlearned, or never there?

    φ = log p_y − log(1 − p_y). Of each pair of shadow models one was trained with a row and unlearned it, the other
    never had it and unlearned other rows. Λ of a row in a model is `held_out_ratios`.

    * AUC of the shadows: of Λ of rows that were unlearned against those that were never there, one score for each
      shadow. Base: the same attack on the shadows before unlearning (that is LiRA). Retrain: 50 by definition, as its
      answers do not hang on which rows were forgotten.
    * found at 1 % false alarms: the share of the unlearned rows, on the same scale, where these are ten or more.
    * AUC of the model: Λ of the judged model, the base and Retrain, by Normals of all shadows, against Λ of rows that
      were never there. Retrain unlearned nothing, so its value is the aim and not 50. Further Retrains set the bar.

    Facts: how many models, to how many the Normals are fitted, and what training them took.
    """
    if subject.shadows is None:
        return _not_made("there is nothing that makes shadow models")
    if len(subject.rows("forget")) < ROWS:
        return _not_made(f"halves of fewer than {ROWS} rows say nothing")
    make, rows = subject.shadows, subject.rows("forget")
    shadows: Shadows = subject.once(("shadows", settings.shadows), lambda: make(settings.shadows))
    inside = torch.stack([torch.isin(rows, seen) for seen in shadows.seen])
    files: dict[Role, tuple[Path, ...]] = {"base": shadows.bases, "model": shadows.unlearned}
    margins: dict[Role, Tensor] = {
        role: _finite(torch.stack([observe_margins(subject, path, rows) for path in paths]))
        for role, paths in files.items()
    }
    ratios = {role: held_out_ratios(values, inside) for role, values in margins.items()}
    readings = [_auc(ratios, inside), _found(ratios, inside)]
    readings.append(_of_model(subject, rows, fit_normals(margins["model"], inside), ratios["model"][~inside]))
    fitted = settings.shadows // 2 - 1
    facts: dict[str, Any] = {
        "shadows": settings.shadows,
        "fitted": fitted,
        "seconds": shadows.seconds,
        "moved_by_unlearning": _moved(margins, inside),
        **shadows.about,
    }
    return Found(tuple(readings), _text(readings, settings.shadows, fitted), facts)


def _auc(ratios: Mapping[Role, Tensor], inside: Tensor) -> Reading:
    found = _by_shadow(shares_below, ratios, inside, chance=50.0)
    return read_scale(NAMES[0], found, span=50.0, unit="draws")


def _found(ratios: Mapping[Role, Tensor], inside: Tensor) -> Reading:
    unseen = int((~inside).sum())
    if RATE * unseen < FEW:
        return unread(NAMES[1], f"of {unseen} answers to rows that were never there 1 % are too few to tell", "draws")
    found = _by_shadow(partial(found_at, rate=RATE), ratios, inside, chance=100.0 * RATE)
    return read_scale(NAMES[1], found, span=100.0, unit="draws")


def _by_shadow(
    tell: Callable[[Tensor, Tensor], Tensor], ratios: Mapping[Role, Tensor], inside: Tensor, chance: float
) -> dict[Role, Tensor]:
    """Return the score of each shadow: how its unlearned rows stand to those that were never there, of all shadows."""
    found = {
        role: torch.stack([tell(one[mine], values[~inside]).mean() for one, mine in zip(values, inside, strict=True)])
        for role, values in ratios.items()
    }
    return {**found, "reference": torch.full((len(inside),), chance, dtype=torch.float64)}


def _of_model(subject: Subject, rows: Tensor, normals: Normals, unseen: Tensor) -> Reading:
    def score(margins: Tensor) -> Tensor:
        return shares_below(log_ratio(_finite(margins), normals), unseen)

    scores: dict[Role, Tensor] = {role: score(observe_margins(subject, subject.kept(role), rows)) for role in ROLES}
    further = [score(observe_margins(subject, model, rows)) for model in subject.further()]
    read = partial(read_scale, NAMES[2], span=50.0)
    return with_controls(read(scores), [read({**scores, "model": one}) for one in further])


def _moved(margins: Mapping[Role, Tensor], inside: Tensor) -> dict[str, float]:
    """Return how far unlearning moved φ, on the average, of the rows that were unlearned and of the others."""
    moved = margins["model"] - margins["base"]
    return {"unlearned": float(moved[inside].mean()), "never there": float(moved[~inside].mean())}


def _text(readings: list[Reading], shadows: int, fitted: int) -> str:
    auc, found, model = readings
    text = (
        f"Over {shadows} shadow models, {shadows // 2} of either kind for each row, a likelihood ratio fitted to "
        f"{fitted} and {fitted} tells rows that were unlearned from rows that were never there with an AUC of "
        f"{auc.model:.1f} % (before unlearning {auc.base:.1f} %, 50 % by chance)"
    )
    if found.model is not None:
        text += f", and finds {found.model:.1f} % of them at 1 % false alarms (before {found.base:.1f} %)"
    if model.model is not None:
        text += (
            f"; by that ratio the model itself has {model.model:.1f} % "
            f"(Retrain {model.reference:.1f} %, the base {model.base:.1f} %)"
        )
    few = "" if fitted >= LEAST else f" Fewer than {LEAST} models of either kind make a weak attack."
    return f"{text}.{few}"


def _not_made(why: str) -> Found:
    return Found(tuple(unread(name, why) for name in NAMES), f"No attack was made: {why}.")


def _finite(values: Tensor) -> Tensor:
    if not values.isfinite().all():
        raise DivergedError("u-lira: the answers of a model hold NaN or Inf: it has diverged")
    return values
