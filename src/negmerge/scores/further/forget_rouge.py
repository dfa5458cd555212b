"""ROUGE-L recall of what a language model says to forget rows, greedily."""

from negmerge.scores.language import mean_percent
from negmerge.scores.score import Need, Score

SUMMARY = "ROUGE-L recall of the greedy answers to forget rows (language models; needs rouge-score)"
SCORE = Score(
    name="forget_rouge",
    title="forget ROUGE",
    about="Forget answers said, ROUGE-L",
    needs=frozenset({Need("model", "forget", "rouge")}),
    compute=lambda observed, draw: mean_percent(observed["model"]["forget"]["rouge"], "ROUGE-L"),
    aim="lower",
)
