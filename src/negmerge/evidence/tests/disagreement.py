"""How far are its answers from Retrain's: on how many rows another label, and how much by KL?"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from negmerge.evidence.protocol import Cost, Found, NoSettings
from negmerge.evidence.scale import Role, read_scale
from negmerge.evidence.subject import ROLES, Subject
from negmerge.tasks.task import RowOutputs

SUMMARY = "on how many rows it answers another label than Retrain, and how far its probabilities are from Retrain's"
REQUIRES = (RowOutputs,)
WEIGHT = "description"  # far from Retrain is not the same as near the base
PARTS = ("forget", "retain", "test")


def divergence(reference: Tensor, model: Tensor) -> Tensor:
    """Return KL(reference ‖ model) of each row in nat, float64 [n], of log-probabilities [n, labels].

    A label that the reference gives no probability counts nothing.

    >>> divergence(torch.tensor([[0.0, -torch.inf]]), torch.tensor([[0.5, 0.5]]).log()).item()
    0.6931471824645996
    """
    p, q = reference.double(), model.double()
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(1)


def cost(settings: NoSettings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models."""
    return Cost(evaluated=3 * sum(rows[part] for part in PARTS))


def run(subject: Subject, settings: NoSettings) -> Found:
    """Compare the answers of base and model with those of Retrain, row by row.

    Two readings, of the forget rows: the share whose largest output is another label's than with Retrain, in percent;
    and KL(Retrain ‖ m), whose range is taken to be ln(labels), that of an even guess. Retrain itself has 0, so the
    position is the model's distance as a share of the base's. A further Retrain is not at 0 either: its position is
    how far two Retrains are apart. Facts: both numbers of base and model on forget, retain and test rows.
    """
    facts: dict[str, dict[str, dict[str, float]]] = {}
    apart: dict[str, dict[Role, tuple[Tensor, Tensor]]] = {}
    labels = 0
    for part in (part for part in PARTS if len(subject.parts[part])):
        reference = _log_probabilities(subject, "reference", part)
        labels = reference.shape[1]
        apart[part] = {}
        for role in ROLES:
            other = _log_probabilities(subject, role, part)
            differs = 100.0 * (other.argmax(1) != reference.argmax(1)).double()
            apart[part][role] = differs, divergence(reference, other)
        facts[part] = {
            role: {"disagreement": float(apart[part][role][0].mean()), "kl": float(apart[part][role][1].mean())}
            for role in ("base", "model")
        }
    forget = apart["forget"]
    readings = (
        read_scale("another label", {role: forget[role][0] for role in ROLES}, span=100.0),
        read_scale("KL", {role: forget[role][1] for role in ROLES}, span=math.log(max(2, labels))),
    )
    now, before = facts["forget"]["model"], facts["forget"]["base"]
    kept = f" and on {facts['retain']['model']['disagreement']:.1f} % of those to keep" if "retain" in facts else ""
    text = (
        f"It answers another label than Retrain on {now['disagreement']:.0f} % of the forgotten rows (the base on "
        f"{before['disagreement']:.0f} %){kept}; KL on the forgotten rows is {now['kl']:.2f} nat (the base "
        f"{before['kl']:.2f})."
    )
    return Found(readings, text, facts)


def _log_probabilities(subject: Subject, role: Role, part: str) -> Tensor:
    """Return log softmax of the outputs on the rows of a part, float64 [n, labels]."""

    def made() -> Tensor:
        found = subject.outputs(subject.kept(role), subject.rows(part))
        return torch.cat([logits.double().log_softmax(1) for logits, _ in found])

    return subject.once((getattr(subject, role), "log-probabilities", part), made)
