"""A score in one file: how sure the model still is of the rows that it was to forget. Copy it."""

from negmerge.scores import Need, Score

SUMMARY = "mean confidence in the right class of the forget rows"
SCORE = Score(
    name="forget_confidence",
    title="confidence",
    about="Confidence in forget rows",
    needs=frozenset({Need("model", "forget", "confidence")}),
    compute=lambda observed, draw: 100.0 * float(observed["model"]["forget"]["confidence"].mean()),
    aim="reference",
)
