"""TOFU's forget quality: are the truth ratios of the forget rows those of Retrain?"""

from negmerge.scores.language import forget_quality
from negmerge.scores.score import Need, Score

SUMMARY = "p-value of the Kolmogorov-Smirnov test between the truth ratios of model and Retrain; needs a reference"
SCORE = Score(
    name="forget_quality",
    title="forget quality",
    about="Truth ratios as Retrain's (p-value)",
    needs=frozenset({Need("model", "forget", "truth_ratio"), Need("reference", "forget", "truth_ratio")}),
    compute=lambda observed, draw: forget_quality(
        observed["model"]["forget"]["truth_ratio"], observed["reference"]["forget"]["truth_ratio"]
    ),
    aim="higher",
    unit="",
    high=1.0,
)
