"""Membership of texts: by the loss, less that of a model that never saw them."""

from negmerge.scores.auc import loss_auc
from negmerge.scores.score import Draw, Need, Observed, Role, Score

SUMMARY = "membership by the loss less Retrain's loss on the same row; needs a reference"
PARTS = ("forget", "test")


def _compute(observed: Observed, draw: Draw) -> float:
    return loss_auc(*(observed["model"][part]["loss"] - observed["reference"][part]["loss"] for part in PARTS))


_ROLES: tuple[Role, ...] = ("model", "reference")
SCORE = Score(
    name="membership_reference_auc",
    title="reference AUC",
    about="Loss less Retrain's tells them from unseen",
    needs=frozenset(Need(role, part, "loss") for role in _ROLES for part in PARTS),
    compute=_compute,
    aim="reference",
    chance=50.0,
    attack="reference-auc",
)
