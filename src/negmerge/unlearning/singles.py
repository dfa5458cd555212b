"""Each member on its own: evaluated once in a run, for all methods that begin with it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from negmerge.unlearning.context import Context, Outcome, Rank
from negmerge.unlearning.negation import negate


def single_trials(context: Context) -> dict[Path, Outcome]:
    """Return for each member, in the pool's order, its task vector negated at the α chosen for it.

    They lie in the folder that the methods share, so the second method that asks reads what the first one measured;
    the seconds are those of the first, and count for both.
    """
    shared = replace(context, directory=context.shared / "single-members")
    return {m: negate(shared, "task-arithmetic", {}, [m], m.parent.name) for m in context.members}


def seconds_of(context: Context, trials: Sequence[Outcome]) -> dict[str, float]:
    """Return the seconds of all trials by part; what they share, the pool and the moments, counts once."""
    shared = {"pool": context.pool_seconds}
    if context.projecting is not None:
        shared["moments"] = context.projecting.seconds
    parts = [part for part in trials[0].seconds if part not in shared]
    return {**shared, **{part: sum(trial.seconds[part] for trial in trials) for part in parts}}


def rank_of(context: Context, trial: Outcome) -> Rank:
    """Return how the run's objective ranks a trial at its chosen α, the smallest first."""
    assert trial.selection is not None
    return context.rank(trial.selection.scores)
