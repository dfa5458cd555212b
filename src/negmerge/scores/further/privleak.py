"""PrivLeak: what min-k tells of membership, against what it tells of Retrain's."""

from negmerge.scores.auc import loss_auc
from negmerge.scores.language import privleak
from negmerge.scores.score import Draw, Need, Observed, Role, Score

SUMMARY = "min-k's AUC against Retrain's: 0 is right, −100 not forgotten, above 0 over-forgotten; needs a reference"


def _compute(observed: Observed, draw: Draw) -> float:
    def auc(role: Role) -> float:
        return loss_auc(*(observed[role][part]["min_k"] for part in ("forget", "test")))

    return privleak(auc("model"), auc("reference"))


_ROLES: tuple[Role, ...] = ("model", "reference")
SCORE = Score(
    name="privleak",
    title="privleak",
    about="Membership leaked, against Retrain",
    needs=frozenset(Need(role, part, "min_k") for role in _ROLES for part in ("forget", "test")),
    compute=_compute,
    aim="reference",
    low=-100.0,
    high=None,
)
