"""Task arithmetic with the best member of the pool."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.singles import rank_of, seconds_of, single_trials

KIND = "select"
NEEDS = ("pool", "forget")
SUMMARY = "task arithmetic with the member that the selection objective likes best, found by trying each"
REFERENCE = "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023 (arXiv 2212.04089)"
EACH_MEMBER = True


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Negate each member's task vector at the α chosen for it, and keep the best by the selection's own scores.

    i* = argmin over i of min over α of objective(θ₀ − α·τᵢ); with retain-floor that is forget accuracy among the α that
    hold the floor, and equals go to the higher retain accuracy. Then equals go to the first in the pool's order. The
    time of all the trials counts.
    """
    trials = single_trials(context)
    best = min(context.members, key=lambda member: rank_of(context, trials[member]))
    spent = seconds_of(context, list(trials.values()))
    return replace(trials[best], member=best.parent.name, seconds=spent)
