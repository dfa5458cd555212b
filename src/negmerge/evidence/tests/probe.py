"""Can a linear classifier tell forgotten rows from others by the model's hidden states?"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from negmerge.evidence.blocks import answering
from negmerge.evidence.features import features_of, held_out_right
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.scale import Role, read_scale, unread
from negmerge.evidence.subject import ROLES, Subject

SUMMARY = "whether a linear classifier on hidden states of held-out rows tells those of the forgotten kind from others"
REFERENCE = (
    "Alain and Bengio, Understanding Intermediate Layers Using Linear Classifier Probes, 2016 (arXiv 1610.01644)"
)
LEAST = 20  # held-out rows of the forgotten kind; with fewer the forget rows themselves are taken
FOLDS = 5


class Settings(EvidenceSettings):
    """Rows, and where they are looked at."""

    rows: int = Field(300, ge=20, description="of either kind, at most")
    layer: str | None = Field(
        None, description="the module whose output is read; what the last layer gets unless given"
    )


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models."""
    return Cost(evaluated=3 * 2 * min(settings.rows, max(rows["test_forget"], rows["forget"]), rows["test"]))


def run(subject: Subject, settings: Settings) -> Found:
    """Fit a logistic regression to hidden states of rows of the forgotten kind and of as many others, in five folds.

    Of the forgotten kind are unseen rows (test, then validation) of the classes or the source that was forgotten; where
    there are fewer than 20 (single rows were forgotten), the forget rows themselves, against unseen rows: then it is
    asked whether the model's states tell that it saw them. Score: the share of rows on the right side, in folds that
    the line was not fitted to, in percent; chance is 50, so its range is 50. Every model has lines of its own.
    """
    ours, others, which = _kinds(subject)
    count = min(settings.rows, len(ours), len(others))
    if count < LEAST:
        why = "there are too few rows of either kind"
        return Found((unread("probe", why),), "Too few rows to fit a line to.")
    models = [subject.kept(role) for role in ROLES]
    if settings.layer is None and len({answering(subject.task, m, ours[:2], subject.device) for m in models}) > 1:
        why = "the models do not end in the same layer"
        return Found((unread("probe", why),), "The models do not end in the same layer; `layer` names one.")
    generator = subject.generator("probe")
    ours, others = (rows[torch.randperm(len(rows), generator=generator)[:count]] for rows in (ours, others))
    rows, kind = torch.cat([ours, others]), torch.arange(2 * count) < count
    fold = torch.arange(2 * count) % FOLDS
    right: dict[Role, Tensor] = {}
    for role in ROLES:

        def made(role: Role = role) -> Tensor | None:
            x = features_of(subject, subject.kept(role), rows, settings.layer)
            return held_out_right(x, kind, fold) if len(x) == len(rows) and bool(x.isfinite().all()) else None

        found = subject.once((getattr(subject, role), "probe", str(settings)), made)
        if found is None:
            why = "the layer gives no finite features for each row"
            return Found((unread("probe", why),), "No line can be fitted to what the layer gives.")
        right[role] = 100.0 * found.double()
    shares = {role: float(right[role].mean()) for role in ROLES}
    text = (
        f"A linear classifier on the model's hidden states tells {which} from others in {shares['model']:.0f} % "
        f"(Retrain {shares['reference']:.0f} %, the base {shares['base']:.0f} %; 50 % by chance)."
    )
    facts = {"rows": count, "kind": which, "share": shares}
    return Found((read_scale("probe", right, span=50.0),), text, facts)


def _kinds(subject: Subject) -> tuple[Tensor, Tensor, str]:
    """Return rows of the forgotten kind, other rows, int64 each, and what the former are."""
    parts = subject.parts
    held_out = torch.cat([parts["test_forget"], parts["validation_forget"]])
    others = torch.cat([parts["test"], parts["validation"]])
    if len(held_out) >= LEAST:
        return held_out, others, "unseen rows of the forgotten kind"
    return parts["forget"], others, "forgotten rows"
