"""Multiple choice by likelihood on rows to keep: how often the right answer is likelier than every wrong one."""

from negmerge.scores.language import share_chosen
from negmerge.scores.score import Need, Score

SUMMARY = "share of rows to keep with an answer likelier than all wrong ones (language models)"
SCORE = Score(
    name="retain_choice",
    title="retain choice",
    about="Other answers likelier than wrong ones",
    needs=frozenset({Need("model", "retain", "chosen")}),
    compute=lambda observed, draw: share_chosen(observed["model"]["retain"]["chosen"]),
    aim="higher",
)
