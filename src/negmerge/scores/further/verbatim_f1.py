"""ROUGE-L F1 of what a language model says to the forget rows (VerbMem of MUSE)."""

from negmerge.scores.language import mean_percent
from negmerge.scores.score import Need, Score

SUMMARY = "ROUGE-L F1 of the greedy answers to the forget rows (VerbMem of MUSE); needs rouge-score"
SCORE = Score(
    name="verbatim_f1",
    title="VerbMem",
    about="Forget rows said word for word, ROUGE-L F1",
    needs=frozenset({Need("model", "forget", "rouge_f1")}),
    compute=lambda observed, draw: mean_percent(observed["model"]["forget"]["rouge_f1"], "ROUGE-L F1"),
    aim="lower",
)
