"""Two-step negation: negate, make a short pool at the new point, and negate once more."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from pydantic import Field

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import InputError
from negmerge.unlearning.context import Context, Outcome, with_own_point
from negmerge.unlearning.displacing import write_sum
from negmerge.unlearning.merge_choice import MergeChoice
from negmerge.unlearning.method import OwnPool
from negmerge.unlearning.negation import negate
from negmerge.unlearning.retraining_members import train_like

KIND = "select"
NEEDS = ("pool", "forget")
SUMMARY = "negate part of the way, train a short pool at the new point, negate its merge"
REFERENCE = "Ilharco et al., ICLR 2023 (arXiv 2212.04089), applied twice"


class Settings(MergeChoice):
    """The merge of both steps, how far the first one goes, and how short the second pool is."""

    first: float = Field(0.5, gt=0, le=2, description="the first step, as a share of the α that is best for one step")
    share: float = Field(0.25, gt=0, le=1, description="epochs of the second pool, as a share of the members' own")
    members: int = Field(2, ge=1, description="members that are trained once more at the new point, the first ones")


def pools(settings: Settings) -> Sequence[OwnPool]:
    """Return the pools that it trains: some of the run's own members once more, for a share of their epochs."""
    return [OwnPool(None, "forget", None, settings.members, settings.share)]


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 2


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Go to θ₁ = θ₀ − s·α*·τ, train from there on the forget rows, and return θ₁ − α₂·τ₂.

    τ merges the pool, α* is the run's choice for it and s is `first`; τ₂ merges the changes from θ₁ of members trained
    with the same settings and seeds as before, for `share` of their epochs; α₂ is chosen as any α, with 0 for θ₁
    itself. Where the first step alone is better by the run's objective, that is returned. The vector is
    s·α*·τ + α₂·τ₂, negated at α = 1. A finished second pool is read back.

    Raises InputError for members that were not trained by this run, and for a projection, whose moments are those of
    the base.
    """
    if context.projecting is not None:
        raise InputError("two-step: the second step starts elsewhere than the moments; write projection: none")
    whole = negate(context, settings.method, settings.settings, context.members, "merged")
    assert whole.vector is not None and whole.selection is not None
    first = settings.first * whole.selection.alpha
    start = context.chosen / "first-step.safetensors"
    if not start.exists():
        context.chosen.mkdir(parents=True, exist_ok=True)
        context.write(whole.vector, first, start)
    again, spent = [], 0.0
    for member in context.members[: settings.members]:
        place = context.chosen / "second-pool" / member.parent.name
        trained, seconds = train_like(context, member, place, context.data.forget, start=start, share=settings.share)
        again.append(trained)
        spent += seconds
    choose = partial(context.choose, start=start)
    there = replace(context, base=start, choose=choose, pool_seconds=0.0, directory=context.chosen)
    second = negate(there, settings.method, settings.settings, again, "second")
    assert second.vector is not None and second.selection is not None
    total, file = context.chosen / "both-steps.safetensors", context.chosen / "both-steps.json"
    if not file.exists():
        write_sum(total, [(first, whole.vector), (second.selection.alpha, second.vector)])
        write_bytes_atomic(file, json.dumps(context.score(total, 1.0)).encode())
    scores = json.loads(file.read_text())
    facts = {
        "first_alpha": first,
        "second_alpha": second.selection.alpha,
        "one_step": {"alpha": whole.selection.alpha, **whole.selection.scores},
    }
    seconds_of = {**whole.seconds, "second pool": spent, "second selection": second.seconds["selection"]}
    if not context.rank(scores) < context.rank(whole.selection.scores):
        return replace(
            whole,
            facts={"two_step": {**facts, "taken": False, "scores": dict(whole.selection.scores)}},
            seconds=seconds_of,
        )
    after = second.selection
    selection = replace(
        with_own_point(whole.selection, 1.0, scores), lowest=1.0, seconds=after.seconds, note=after.note
    )
    merge = {**second.merge, "merged_elements": whole.merge["merged_elements"]}
    return Outcome(
        vector=total,
        selection=selection,
        merge=merge,
        facts={"two_step": {**facts, "taken": True, "scores": scores}},
        seconds=seconds_of,
    )
