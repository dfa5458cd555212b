"""ROUGE-L F1 of what a language model says to questions on the texts to forget (KnowMem of MUSE)."""

from negmerge.scores.language import mean_percent
from negmerge.scores.score import Need, Score

SUMMARY = "ROUGE-L F1 of the greedy answers to questions on the texts to forget (KnowMem of MUSE); needs rouge-score"
SCORE = Score(
    name="forget_knowledge_f1",
    title="forget KnowMem",
    about="Questions on forgotten texts answered, ROUGE-L F1",
    needs=frozenset({Need("model", "forget_knowledge", "rouge_f1")}),
    compute=lambda observed, draw: mean_percent(observed["model"]["forget_knowledge"]["rouge_f1"], "ROUGE-L F1"),
    aim="lower",
)
