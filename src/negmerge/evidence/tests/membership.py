"""Do the answers still give away which rows were trained on? Five attacks of one table, the loss, and RMIA."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from negmerge.errors import DivergedError
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Reading, Role, read_scale, unread
from negmerge.evidence.subject import ROLES, Subject
from negmerge.evidence.telling import found_at, shares_below
from negmerge.scores.membership import fit_attack
from negmerge.tasks.task import RowOutputs

SUMMARY = "membership attacks on forget rows against unseen ones of their kind: loss, RMIA, the five SVC attacks"
COLUMNS = ("loss",)
REFERENCE = "Zarifzadeh et al., Low-Cost High-Power Membership Inference Attacks, 2024 (arXiv 2312.03262)"

Attack = Literal[
    "loss", "rmia", "svc-confidence", "svc-correctness", "svc-entropy", "svc-modified-entropy", "svc-outputs"
]
READS = {
    "svc-confidence": "confidence",
    "svc-correctness": "correct",
    "svc-entropy": "entropy",
    "svc-modified-entropy": "modified_entropy",
}
RARE = (0.01, 0.001)  # rates of false alarms
FEW = 10  # false alarms at which a rate can be told


class Settings(EvidenceSettings):
    """Which attacks are made."""

    attacks: tuple[Attack, ...] = Field(("loss", "rmia", "svc-confidence"), min_length=1, description="by name")
    gamma: float = Field(1.0, gt=0, description="RMIA: how many times likelier than a row of the population")
    a: float = Field(0.3, ge=0, le=1, description="RMIA: slope by which p(x) follows from models that never saw x")


class Sides(NamedTuple):
    """The rows of an attack: forgotten ones, unseen ones of their kind, and unseen ones of the population."""

    forget: Tensor
    unseen: Tensor
    population: Tensor


def relative_log_likelihood(loss: Tensor, out: Tensor, a: float) -> Tensor:
    """Return log(p_θ(x) / p(x)), p(x) = ½((1 + a)·p̄ + 1 − a), p̄ the mean likelihood of models that never saw x.

    `loss` = −log p_θ, float64 [n]; `out` the losses of those models, float64 [models, n].

    >>> relative_log_likelihood(torch.zeros(1), torch.zeros(2, 1), 0.3)
    tensor([-0.])
    """
    p = 0.5 * ((1 + a) * torch.exp(-out).mean(0) + 1 - a)
    return -loss - torch.log(p)


def rmia(relative: Tensor, population: Tensor, gamma: float) -> Tensor:
    """Return the share of the population, 0 … 1, that a row is γ times likelier than: Λ(x, z) ≥ γ.

    `relative` and `population` are `relative_log_likelihood` of the rows and of the population, float64 [n] and [m].
    """
    bar = torch.log(torch.tensor(gamma, dtype=torch.float64)).item()
    ordered = population.sort().values.contiguous()
    return torch.searchsorted(ordered, (relative - bar).contiguous(), right=True).double() / len(ordered)


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the models; further Retrains once each are counted as one model more."""
    return Cost(evaluated=4 * (rows["forget"] + rows["test"] + rows["retain"]))


def run(subject: Subject, settings: Settings) -> Found:
    """Attack base, Retrain and the model by the same rows, and read each attack on the one scale.

    Unseen rows are held-out rows of the forgotten groups where groups were forgotten, and test rows else.

    * loss: score of a forget row the share of unseen rows with a larger loss, whose mean is the AUC; and whether it is
      found at 1 % (and 0.1 %) false alarms, where that is ten unseen rows or more.
    * rmia: `rmia` of a row against the population (test rows), p̄ from further Retrains; again as the AUC.
    * svc-…: `fit_attack` on retain rows against unseen ones, for each model its own; score 100 where a forget row is
      called a member. `svc-outputs` reads all probabilities (scikit-learn's machine, C = 3, gamma = 1 / classes).

    Too little is as telling as too much: a model that lies surely beyond Retrain is flagged.
    """
    sides = _sides(subject)
    if sides is None:
        why = "there are no unseen rows of the same kind"
        return Found((unread("membership", why),), f"No attack was made: {why}.")
    readings: list[Reading] = []
    for attack in settings.attacks:
        readings += MAKERS.get(attack, _svc)(subject, sides, attack, settings)
    found = Found(tuple(readings), "", {"unseen": len(sides.unseen)})
    counted = found.counted
    if counted.model is None:
        text = f"Attacks on membership tell nothing here: {counted.why}."
    else:
        text = (
            f"Of the attacks that tell members from others, {counted.name} says most: {counted.model:.1f} % "
            f"(Retrain {counted.reference:.1f} %, the base {counted.base:.1f} %)."
        )
    return Found(found.readings, text, found.facts)


def against_unseen(subject: Subject, settings: Settings) -> Found:
    """Attack base and model by the loss, without Retrain: position 0 is what unseen rows of the same kind have.

    These rows are held-out ones of the forgotten groups where groups were forgotten, and test rows else, in two halves:
    forget rows, and the second half in the place of Retrain, are each set against the first. So both ends have the
    noise of the rows that they are set against. As many rows of either are read, a seeded sample of the more.
    """
    rows = subject.rows("test_forget" if _by_groups(subject) else "test")
    unseen, others = rows[::2], rows[1::2]
    count = min(len(others), len(subject.rows("forget")))
    if not count:
        why = "there are no unseen rows of the same kind"
        return Found((unread("membership", why),), f"No attack was made: {why}.")

    def some(part: Tensor, purpose: str) -> Tensor:
        return part[torch.randperm(len(part), generator=subject.generator("membership", purpose))[:count]]

    asked: dict[Role, tuple[Role, Tensor]] = {
        "base": ("base", some(subject.rows("forget"), "forget")),
        "model": ("model", some(subject.rows("forget"), "forget")),
        "reference": ("model", some(others, "unseen")),
    }
    known = {
        place: [-_read(subject, role, mine, "loss"), -_read(subject, role, unseen, "loss")]
        for place, (role, mine) in asked.items()
    }
    reading = _auc("loss AUC against unseen rows", known)
    text = (
        f"Of a forgotten row and an unseen one the loss says in {reading.model:.1f} % of the pairs which was trained "
        f"on (of two unseen ones in {reading.reference:.1f} %, the base in {reading.base:.1f} %)."
    )
    return Found((reading,), text, {"unseen": len(unseen)})


def _by_groups(subject: Subject) -> bool:
    """Whether unseen rows of the same kind are those of the forgotten groups alone.

    Of classes, which a model tells apart, they are; of authors or documents others do as well, where these have none.
    """
    if subject.kind == "source":
        return True
    return len(subject.forgotten_groups()) > 0 and (subject.counts or len(subject.parts["test_forget"]) > 0)


def _sides(subject: Subject) -> Sides | None:
    groups = _by_groups(subject)
    forget, unseen = subject.rows("forget"), subject.rows("test_forget" if groups else "test")
    population = subject.rows("test")
    if not groups:  # rows cannot be compared with themselves
        unseen, population = unseen[::2], unseen[1::2]
    return Sides(forget, unseen, population) if len(forget) and len(unseen) and len(population) else None


def _loss(subject: Subject, sides: Sides, attack: str, settings: Settings) -> list[Reading]:
    known = {role: [-_read(subject, role, rows, "loss") for rows in sides[:2]] for role in ROLES}
    readings = [_auc("loss AUC", known)]
    for rate in RARE:
        if rate * len(sides.unseen) >= FEW:
            found = {role: found_at(mine, others, rate) for role, (mine, others) in known.items()}
            readings.append(read_scale(f"found at {100 * rate:g} % false alarms", found, span=100.0, both_sides=True))
    return readings


def _rmia(subject: Subject, sides: Sides, attack: str, settings: Settings) -> list[Reading]:
    if not subject.references:
        return [unread("RMIA", "it needs further Retrains, and there is none")]
    out = [
        torch.stack([_finite(subject.observe(model, rows, ("loss",))["loss"]) for model in subject.further()])
        for rows in sides
    ]
    known: dict[Role, list[Tensor]] = {}
    for role in ROLES:
        losses = [_read(subject, role, rows, "loss") for rows in sides]
        *pair, population = (
            relative_log_likelihood(loss, other, settings.a) for loss, other in zip(losses, out, strict=True)
        )
        known[role] = [rmia(relative, population, settings.gamma) for relative in pair]
    return [_auc("RMIA AUC", known)]


def _svc(subject: Subject, sides: Sides, attack: str, settings: Settings) -> list[Reading]:
    column = READS[attack]
    if column not in subject.task.COLUMNS:
        return [unread(attack, f"the task {subject.task.NAME} does not observe {column!r}")]
    called: dict[Role, Tensor] = {}
    for role in ROLES:
        members, others, target = (
            _read(subject, role, rows, column) for rows in (subject.rows("retain"), sides.unseen, sides.forget)
        )
        machine = fit_attack(members, others, seed=subject.seed, most=subject.most)
        called[role] = 100.0 * torch.from_numpy(machine.is_member(target.numpy())).double()
    return [read_scale(attack, called, span=100.0, both_sides=True)]


def _outputs(subject: Subject, sides: Sides, attack: str, settings: Settings) -> list[Reading]:
    from sklearn.svm import SVC

    if not isinstance(subject.task, RowOutputs):
        return [unread(attack, f"the task {subject.task.NAME} gives no outputs by row")]
    called: dict[Role, Tensor] = {}
    for role in ROLES:
        members, others, target = (
            torch.cat([logits.double().softmax(1) for logits, _ in subject.outputs(subject.kept(role), rows)])
            for rows in (subject.rows("retain"), sides.unseen, sides.forget)
        )
        size = min(len(members), len(others))
        generator = subject.generator("membership", attack)
        members, others = (part[torch.randperm(len(part), generator=generator)[:size]] for part in (members, others))
        machine = SVC(C=3, gamma="auto").fit(torch.cat([members, others]).numpy(), [1] * size + [0] * size)
        called[role] = 100.0 * torch.from_numpy(machine.predict(target.numpy())).double()
    return [read_scale(attack, called, span=100.0, both_sides=True)]


MAKERS: dict[str, Callable[[Subject, Sides, str, Settings], list[Reading]]] = {
    "loss": _loss,
    "rmia": _rmia,
    "svc-outputs": _outputs,
}


def _auc(name: str, known: Mapping[Role, list[Tensor]]) -> Reading:
    return read_scale(name, {role: shares_below(*pair) for role, pair in known.items()}, span=50.0, both_sides=True)


def _read(subject: Subject, role: Role, rows: Tensor, column: str) -> Tensor:
    key = (getattr(subject, role), "membership", column, tuple(rows.tolist()))
    values: Tensor = subject.once(key, lambda: subject.observe(subject.kept(role), rows, (column,))[column].double())
    return _finite(values)


def _finite(values: Tensor) -> Tensor:
    if not values.isfinite().all():
        raise DivergedError("membership: the answers of a model hold NaN or Inf: it has diverged")
    return values
