"""TOFU's model utility, of all nine numbers: ROUGE is measured by generation, so this is dear."""

from negmerge.scores.further.model_utility import PARTS, numbers
from negmerge.scores.language import harmonic_mean, mean_percent
from negmerge.scores.score import Draw, Need, Observed, Score

SUMMARY = "harmonic mean of probability, ROUGE-L recall and truth ratio on retain rows, real authors, world facts"


def _compute(observed: Observed, draw: Draw) -> float | None:
    found = numbers(observed)
    if found is None:
        return None
    return harmonic_mean([*found, *(mean_percent(observed["model"][part]["rouge"], "model utility") for part in PARTS)])


SCORE = Score(
    name="model_utility_rouge",
    title="utility (9)",
    about="Model utility",
    needs=frozenset(
        Need("model", part, column) for part, own in PARTS.items() for column in (own, "truth_ratio", "rouge")
    ),
    compute=_compute,
    aim="higher",
)
