"""Greedy merge: add one task vector after the other to the mean, as long as it helps."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.negation import negate
from negmerge.unlearning.singles import rank_of, seconds_of, single_trials

KIND = "select"
NEEDS = ("pool", "forget")
SUMMARY = "the mean of those task vectors that, tried from the best to the worst, improve the selection objective"
REFERENCE = "the greedy soup of Wortsman et al., Model Soups, ICML 2022 (arXiv 2203.05482), on task vectors"
EACH_MEMBER = True


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid")


def trials(members: int) -> int:
    """Return for how many means α is chosen, besides the members alone."""
    return members - 1


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Sort the members by the objective of each alone; take the first; add each next one where that improves it.

        S ← {best};  for i in order: S ← S ∪ {i} where objective(mean of τ over S ∪ {i}) < objective(mean over S)

    Every mean is judged at the α chosen for it. Equals in the order are those of the pool; a tie with what is there is
    no improvement, so the vector stays out. The trials of single members are shared with best-single, and the time of
    all trials counts.

    Source: arXiv 2203.05482, recipe 1, with the selection's scores in the place of validation accuracy.
    """
    trials = single_trials(context)
    order = sorted(context.members, key=lambda member: rank_of(context, trials[member]))
    taken, best = [order[0]], trials[order[0]]
    tried = list(trials.values())
    for i, member in enumerate(order[1:], start=1):
        # In the pool's order, so that the mean is that of a uniform merge of the same members.
        together = [m for m in context.members if m in taken or m == member]
        trial = negate(context, "uniform", {}, together, f"step-{i:03d}")
        tried.append(trial)
        if rank_of(context, trial) < rank_of(context, best):
            taken, best = together, trial
    return replace(
        best,
        facts={"taken": [m.parent.name for m in context.members if m in taken], "taken_members": len(taken)},
        seconds=seconds_of(context, tried),
    )
