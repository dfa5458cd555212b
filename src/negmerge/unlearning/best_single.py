"""Task arithmetic with the best member of the pool."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from negmerge.unlearning import Context, Outcome
from negmerge.unlearning._negation import negate

KIND = "select"
NEEDS = ("pool", "forget")
SUMMARY = "task arithmetic with the member that forgets most above the floor, found by trying each"
REFERENCE = "Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023 (arXiv 2212.04089)"


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Negate each member's task vector at the α chosen for it, and keep the best by the selection's own scores.

    i* = argmin over i of min over α of forget(θ₀ − α·τᵢ), among the α that hold the floor. Equals go to the higher
    retain accuracy, then to the first in the pool's order. The time of all the trials counts.
    """
    trials = {m: negate(context, "task-arithmetic", {}, [m], m.parent.name) for m in context.members}

    def rank(member: object) -> tuple[float, float]:
        selection = trials[member].selection  # type: ignore[index]
        assert selection is not None
        return selection.scores["forget"], -selection.scores["retain"]

    best = min(context.members, key=rank)
    spent = {part: sum(t.seconds[part] for t in trials.values()) for part in ("merge", "selection")}
    return replace(trials[best], member=best.parent.name, seconds={"pool": context.pool_seconds, **spent})
