"""ROUGE-L recall of what a language model says to retain rows, greedily."""

from negmerge.scores.language import mean_percent
from negmerge.scores.score import Need, Score

SUMMARY = "ROUGE-L recall of the greedy answers to retain rows (language models; needs rouge-score)"
SCORE = Score(
    name="retain_rouge",
    title="retain ROUGE",
    about="Other answers said, ROUGE-L",
    needs=frozenset({Need("model", "retain", "rouge")}),
    compute=lambda observed, draw: mean_percent(observed["model"]["retain"]["rouge"], "ROUGE-L"),
    aim="higher",
)
