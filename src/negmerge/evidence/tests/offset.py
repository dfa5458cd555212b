"""Was the class removed, or only its output lowered? A constant added to it, without any training, tells."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Role, read_scale, unread
from negmerge.evidence.subject import ROLES, Subject
from negmerge.tasks.task import RowOutputs

SUMMARY = "what a constant brings back that is added to the outputs of the forgotten classes; nothing is trained"
REQUIRES = (RowOutputs,)


class Settings(EvidenceSettings):
    """How much the other rows may lose."""

    points: float = Field(2.0, gt=0, lt=100, description="that other rows may lose, in percent of them")


class Lifts(NamedTuple):
    """What decides a row as a constant c is added to the forgotten classes' logits.

    `inner`: whether the row's label has the largest logit on its own side, forgotten or other (the first of equals);
    `margin`: the largest forgotten logit less the largest other one, float64 [n]. A forgotten row is right where
    `inner` and margin + c > 0, another one where `inner` and margin + c <= 0.
    """

    inner: Tensor
    margin: Tensor


def lifts_of(logits: Tensor, labels: Tensor, forgotten: Tensor) -> Lifts:
    """Return what decides rows with logits [n, classes], labels int64 [n]; `forgotten` are the classes, int64."""
    logits = logits.double()
    lifted = torch.zeros(logits.shape[1], dtype=torch.bool)
    lifted[forgotten] = True
    ours, others = logits.masked_fill(~lifted, -torch.inf), logits.masked_fill(lifted, -torch.inf)
    side = torch.where(lifted[labels], ours.argmax(1), others.argmax(1))
    return Lifts(side == labels, ours.max(1).values - others.max(1).values)


def largest_offset(others: Lifts, points: float) -> float:
    """Return the largest constant at which at most ⌊points · n / 100⌋ of the n other rows fall that were right at 0.

    A right row falls once the constant exceeds −margin, so it is the allowed + 1-th smallest −margin of those right,
    or infinity where all of them may fall. Rows that are equal fall together. It may be below 0 only where the model
    answers other rows by a forgotten class already, which is no fall.
    """
    right = others.inner & (others.margin <= 0)
    limits = (-others.margin[right]).sort().values
    allowed = int(points * len(others.margin) / 100 + 1e-9)
    return float(limits[allowed]) if allowed < len(limits) else float("inf")


def above(rows: Lifts, others: Lifts) -> Tensor:
    """Return for each row the share of other rows, in percent, whose margin is smaller; ties count as half.

    The mean over the rows is the AUC of the margin, rows against others. float64 [n].
    """
    ordered = others.margin.sort().values.contiguous()
    below = torch.searchsorted(ordered, rows.margin.contiguous())
    through = torch.searchsorted(ordered, rows.margin.contiguous(), right=True)
    return 50.0 * (below + through).double() / len(ordered)


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models."""
    return Cost(evaluated=3 * (rows["forget"] + rows["test"]))


def run(subject: Subject, settings: Settings) -> Found:
    """Add to each of the three models the constant that its other rows bear, and look at the forget rows again.

    Score: the share of forget rows that are right, in percent. The constant of a model is `largest_offset` on test rows
    of other classes. A second reading is the AUC of the classes' margin, forget rows against those: surely below
    Retrain's, the model knows the class to be something it is not.
    """
    forgotten = subject.forgotten_groups()
    if subject.kind == "source" or not len(forgotten):
        return Found((unread("offset", "no class is forgotten as a whole"),), "No class was forgotten as a whole.")
    back: dict[Role, Tensor] = {}
    ranks: dict[Role, Tensor] = {}
    offsets = {}
    for role in ROLES:
        rows, others = (_lifts(subject, subject.kept(role), part, forgotten) for part in ("forget", "test"))
        offset = largest_offset(others, settings.points)
        back[role] = 100.0 * (rows.inner & (rows.margin + offset > 0)).double()
        ranks[role] = above(rows, others)
        offsets[role] = offset if offset < float("inf") else None
    readings = (
        read_scale("rows that come back", back, span=100.0),
        read_scale("AUC of the margin", ranks, span=50.0, both_sides=True),
    )
    shares = {role: float(back[role].mean()) for role in ROLES}
    text = (
        f"A constant added to the forgotten outputs, until {settings.points:g} % of other rows are lost, brings "
        f"{shares['model']:.0f} % of the forgotten rows back (Retrain {shares['reference']:.0f} %, the base "
        f"{shares['base']:.0f} %)."
    )
    return Found(readings, text, {"offset": offsets, "auc": {role: float(ranks[role].mean()) for role in ROLES}})


def _lifts(subject: Subject, model: nn.Module, part: str, forgotten: Tensor) -> Lifts:
    found = [lifts_of(logits, labels, forgotten) for logits, labels in subject.outputs(model, subject.rows(part))]
    return Lifts(torch.cat([one.inner for one in found]), torch.cat([one.margin for one in found]))
