"""TOFU's forget quality: are the truth ratios of the forget rows those of Retrain?"""

from negmerge.scores.language import forget_quality, has_ratios
from negmerge.scores.score import Draw, Need, Observed, Role, Score

SUMMARY = "p-value of the Kolmogorov-Smirnov test between the truth ratios of model and Retrain; needs a reference"


def _compute(observed: Observed, draw: Draw) -> float | None:
    own, other = (observed[role]["forget"]["truth_ratio"] for role in _ROLES)
    return forget_quality(own, other) if has_ratios(own, other) else None


_ROLES: tuple[Role, ...] = ("model", "reference")
SCORE = Score(
    name="forget_quality",
    title="forget quality",
    about="Truth ratios as Retrain's (p-value)",
    needs=frozenset(Need(role, "forget", "truth_ratio") for role in _ROLES),
    compute=_compute,
    aim="higher",
    unit="",
    high=1.0,
)
