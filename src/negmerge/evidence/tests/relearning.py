"""How fast does it come back from a few rows? The whole curve, beside those of Retrain and of the base."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from negmerge.evidence.brief_training import Optimizer, Way, take_steps
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import REACHED, Reading, Role, read_scale, unread
from negmerge.evidence.subject import Subject
from negmerge.training.adapters import AdapterSettings

SUMMARY = "how fast forgotten rows come back from five of them, beside Retrain: the curve over the steps it needs"
COLUMNS = ("correct",)
TYPICAL = 40  # steps that a curve has, for the estimate
TAUGHT = 0.1  # of the base's score, that Retrain must gain for a model that gains nothing to say anything


class Settings(EvidenceSettings):
    """Rows, rates and steps of the training; the rate at which most comes back counts."""

    rows: int = Field(5, ge=1, description="forget rows of a batch, of each class that is forgotten as a whole")
    retain: int = Field(9, ge=0, description="times as many retain rows stand beside them")
    draws: int = Field(5, ge=5, description="draws of these rows")
    lr: float = Field(1e-2, gt=0, description="learning rate, held")
    factors: tuple[float, ...] = Field((0.3, 1.0, 3.0), min_length=1, description="that the rate is tried with")
    steps: int = Field(200, ge=1, description="at most")
    optimizer: Optimizer = Field("sgd", description="sgd without momentum, or adamw without weight decay")
    adapter: AdapterSettings | None = Field(None, description="train a LoRA adapter {r, alpha, targets} instead of all")
    scored: int = Field(60, ge=20, description="other forget rows and unseen rows that a point is scored on, of each")

    def every(self, factor: float) -> int:
        """Return how many steps lie between two points of a curve: 1, and at a smaller rate so many more."""
        return max(1, round(1.0 / factor))


class Draw(NamedTuple):
    """The rows of one draw: trained on, other forget rows, and unseen rows of their kind; int64 each."""

    trained: Tensor
    others: Tensor
    unseen: Tensor


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return what curves of typical length take: Retrain's decides how long they are, `steps` at most."""
    curves = 3 * settings.draws
    points = curves * sum(min(TYPICAL, settings.steps // settings.every(one)) for one in settings.factors)
    steps = curves * sum(min(TYPICAL * settings.every(one), settings.steps) for one in settings.factors)
    batch = settings.rows * max(1, rows["forgotten_groups"]) * (1 + settings.retain)
    scored = min(settings.scored, rows["forget"]) + min(settings.scored, rows["test_forget"] or rows["test"])
    return Cost(trained=steps * batch, evaluated=points * scored)


def run(subject: Subject, settings: Settings) -> Found:
    """Train all three models on a few forget rows among retain rows, and follow the share of other ones that is right.

    By SGD, or as the settings say, on full batches of one draw, which is the same for all three. Score of a draw: the
    mean over the points 0 … K of the share of other forget rows that are right, in percent; K is the first point at
    which Retrain, on the mean of the draws, has half of what the base has at step 0, or that of `steps`. Points are a
    step apart, at a rate times 0.3 three steps (`every`). Where Retrain has that much before any training, the test
    tells nothing. Where it has not gained a tenth of it at the end, these steps teach nobody: a model that stays where
    Retrain stays is then no answer, while one from which the rows come back still is. Facts: the mean curves, K of each
    rate, and `memory`, the mean over the curve of other forget rows less unseen rows of their kind: only that is memory
    of these rows.
    """
    draws = [_draw(subject, settings, i) for i in range(settings.draws)]
    if any(not len(draw.others) for draw in draws):
        return Found((unread("relearning", "there are no other forget rows", "draws"),), "Too few rows to relearn.")
    readings: list[Reading] = []
    facts: dict[str, object] = {}
    start = sum(_scores(subject, subject.kept("base"), draw)[0] for draw in draws) / len(draws)
    for factor in settings.factors:
        lr = settings.lr * factor
        name = f"lr {lr:.3g}"
        every = settings.every(factor)
        longest = settings.steps // every
        reference = subject.once(
            (subject.reference, "relearning", str(settings), factor),
            partial(_curves, subject, "reference", draws, settings, lr, longest, every, until=start / 2),
        )
        points = reference.shape[1] - 1
        if not points:
            readings.append(unread(name, "Retrain has half of the base's score without training", "draws"))
            continue
        base = subject.once(
            (subject.base, "relearning", str(settings), factor),
            partial(_curves, subject, "base", draws, settings, lr, points, every),
        )
        model = _curves(subject, "model", draws, settings, lr, points, every)
        curves: dict[Role, Tensor] = {"reference": reference, "base": base, "model": model}
        known = {role: curve[:, :, 0].mean(1) for role, curve in curves.items()}
        gained = float((reference[:, -1, 0] - reference[:, 0, 0]).mean())
        readings.append(_answer(read_scale(name, known, span=100.0, unit="draws"), gained >= TAUGHT * start))
        facts[name] = {
            "steps": points * every,
            "every": every,
            "curves": {role: curve[:, :, 0].mean(0).tolist() for role, curve in curves.items()},
            "memory": {role: _memory(curve) for role, curve in curves.items()},
        }
    found = Found(tuple(readings), "", facts)
    return Found(found.readings, _text(found, "" if subject.counts else subject.task.MEASURE), facts)


def _answer(reading: Reading, taught: bool) -> Reading:
    """Return a reading that says nothing where Retrain was taught nothing, and no more came back of the model."""
    if taught or not reading.informative or (reading.low or 0.0) > REACHED:
        return reading
    why = "so many steps at this rate teach Retrain nothing, so they need not bring anything back"
    return replace(reading, informative=False, why=why)


def _draw(subject: Subject, settings: Settings, number: int) -> Draw:
    """Return the rows of a draw: a few of each forgotten class, or of all forget rows where no class is forgotten."""
    generator = subject.generator("relearning", number)
    forget, groups = subject.parts["forget"], subject.forgotten_groups()
    order = forget[torch.randperm(len(forget), generator=generator)]
    if len(groups):
        of = subject.task.rows().group_of[order]
        chosen = torch.cat([order[of == group][: settings.rows] for group in groups])
    else:
        chosen = order[: settings.rows]
    others = order[~torch.isin(order, chosen)][: settings.scored]
    retain = subject.parts["retain"]
    beside = retain[torch.randperm(len(retain), generator=generator)][: settings.retain * len(chosen)]
    unseen = subject.parts["test_forget"]
    unseen = unseen if len(unseen) else subject.parts["test"]
    unseen = unseen[torch.randperm(len(unseen), generator=generator)][: settings.scored]
    return Draw(torch.cat([chosen, beside]), others, unseen)


def _curves(
    subject: Subject,
    role: Role,
    draws: Sequence[Draw],
    settings: Settings,
    lr: float,
    points: int,
    every: int,
    until: float = float("inf"),
) -> Tensor:
    """Return the scores [draws, points + 1, 2] of other forget rows and of unseen ones, a point each `every` steps.

    It stops at the first point at which the mean over the draws of the former reaches `until`.
    """
    models = [subject.open(role) for _ in draws]
    way = Way(settings.optimizer, settings.adapter)
    optimisers = [way.prepare(model, lr, i, "relearning") for i, model in enumerate(models)]
    batches = [subject.task.batch(draw.trained, subject.device) for draw in draws]
    found = [[_scores(subject, model, draw) for model, draw in zip(models, draws, strict=True)]]
    while len(found) <= points and sum(one[0] for one in found[-1]) / len(draws) < until:
        for model, optimiser, batch in zip(models, optimisers, batches, strict=True):
            take_steps(subject, model, optimiser, [batch] * every)
        found.append([_scores(subject, model, draw) for model, draw in zip(models, draws, strict=True)])
    return torch.tensor(found, dtype=torch.float64).transpose(0, 1)


def _scores(subject: Subject, model: nn.Module, draw: Draw) -> tuple[float, float]:
    parts = {"others": draw.others, "unseen": draw.unseen}
    column = subject.task.KNOWN
    found = subject.task.observe(model, parts, dict.fromkeys(parts, (column,)))
    others, unseen = (found[part][column].double() for part in parts)
    return 100.0 * float(others.mean()), 100.0 * float(unseen.mean()) if len(unseen) else float("nan")


def _memory(curve: Tensor) -> float | None:
    apart = float((curve[:, :, 0] - curve[:, :, 1]).mean())
    return apart if apart == apart else None


def _text(found: Found, measure: str) -> str:
    """Return the line in plain words, of the rate that counts; `measure` is what is no share of rows that are right."""
    reading = found.counted
    if reading.model is None:
        return "Retrain knows these rows nearly as well as the base, so that nothing can be relearnt."
    facts = found.facts[reading.name]
    curves = facts["curves"]
    half = "know the others half as well as the base" if measure else "get half of them right"
    needed = f"for the {facts['steps']} steps that Retrain needs to {half}"
    if curves["reference"][-1] < curves["base"][0] / 2:
        half = f"come to {half}" if measure else half
        needed = f"for {facts['steps']} steps, in which Retrain does not {half}"
    got = f"it gets {reading.model:.0f} % of the others right on the way"
    if measure:
        got = f"it gives the others a mean {measure} of {reading.model:.0f} % on the way"
    beside = f"(Retrain {reading.reference:.0f} %, the base {reading.base:.0f} %)"
    return f"Trained on a few forgotten rows {needed} ({reading.name}), {got} {beside}."
