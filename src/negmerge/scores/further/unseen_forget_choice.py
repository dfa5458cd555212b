"""Multiple choice by likelihood on unseen rows of the kind to forget: how often the right answer wins."""

from negmerge.scores.language import share_chosen
from negmerge.scores.score import Need, Score

SUMMARY = "share of unseen rows of the kind to forget with an answer likelier than all wrong ones (language models)"
SCORE = Score(
    name="unseen_forget_choice",
    title="unseen choice",
    about="Unseen forget answers likelier than wrong ones",
    needs=frozenset({Need("model", "test_forget", "chosen")}),
    compute=lambda observed, draw: share_chosen(observed["model"]["test_forget"]["chosen"]),
    aim="lower",
)
