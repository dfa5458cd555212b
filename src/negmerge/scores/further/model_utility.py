"""TOFU's model utility, of six numbers: without generation there is no ROUGE."""

from negmerge.scores.language import harmonic_mean, has_ratios, mean_percent, truth_of_ratios
from negmerge.scores.score import Draw, Need, Observed, Score

SUMMARY = "harmonic mean of probability and truth ratio on retain rows, real authors, world facts (six of TOFU's nine)"
PARTS = {"retain": "confidence", "real_authors": "options", "world_facts": "options"}


def numbers(observed: Observed) -> list[float] | None:
    """Return the three probabilities and the three truth ratios, in percent; None where a part has no other answers."""
    seen = observed["model"]
    if not has_ratios(*(seen[part]["truth_ratio"] for part in PARTS)):
        return None
    found = [mean_percent(seen[part][column], "model utility") for part, column in PARTS.items()]
    return [*found, *(truth_of_ratios(seen[part]["truth_ratio"]) for part in PARTS)]


def _compute(observed: Observed, draw: Draw) -> float | None:
    found = numbers(observed)
    return None if found is None else harmonic_mean(found)


SCORE = Score(
    name="model_utility",
    title="utility",
    about="Model utility, without ROUGE",
    needs=frozenset(Need("model", part, column) for part, own in PARTS.items() for column in (own, "truth_ratio")),
    compute=_compute,
    aim="higher",
)
