"""Multiple choice by likelihood on rows to forget: how often the right answer is likelier than every wrong one."""

from negmerge.scores.language import share_chosen
from negmerge.scores.score import Need, Score

SUMMARY = "share of rows to forget with an answer likelier than all wrong ones (language models)"
SCORE = Score(
    name="forget_choice",
    title="forget choice",
    about="Forget answers likelier than wrong ones",
    needs=frozenset({Need("model", "forget", "chosen")}),
    compute=lambda observed, draw: share_chosen(observed["model"]["forget"]["chosen"]),
    aim="lower",
)
