"""Contrast vectors: what a member learned of the forget rows beyond what the same training on retain rows changes."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import Field

from negmerge.errors import InputError
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.displacing import write_displaced
from negmerge.unlearning.merge_choice import MergeChoice
from negmerge.unlearning.method import OwnPool
from negmerge.unlearning.negation import negate

KIND = "select"
NEEDS = ("pool", "forget", "retain")
SUMMARY = "a merge of each member less its twin, which was trained alike on as many retain rows"
REFERENCE = "the difference of two task vectors, Ilharco et al., ICLR 2023 (arXiv 2212.04089), member by member"


class Settings(MergeChoice):
    """How the contrast vectors are merged."""

    weight: float = Field(1.0, gt=0, description="how much of the twin's change is taken off")


def pools(settings: Settings) -> Sequence[OwnPool]:
    """Return the pools that it trains: the twins."""
    return [OwnPool(None, "retain")]


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 1


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Merge τᵢ − w·τ′ᵢ and negate: τᵢ of the member, τ′ᵢ of its twin, trained from the base on retain rows.

    The twins of all members see one seeded sample of retain rows, as many as there are forget rows, with the member's
    own settings and batch order. Their training counts in the row's time. Finished twins are read back; a member whose
    twin diverged is left out.

    Raises InputError for members that were not trained by this run.
    """
    folder = context.directory / "contrasts"
    twins, spent = context.train_pool(context.base, context.data.twin_rows(), None)
    twin_of = {twin.parent.name.rpartition("-")[0]: twin for twin in twins}
    contrasts = []
    for member in context.members:
        twin = twin_of.get(member.parent.name)
        if twin is None:
            continue  # it diverged
        contrasts.append(folder / member.parent.name / "model.safetensors")
        if not contrasts[-1].exists():
            contrasts[-1].parent.mkdir(parents=True, exist_ok=True)
            write_displaced(contrasts[-1], context.base, [(1.0, member), (-settings.weight, twin)])
    if not contrasts:
        raise InputError("contrast: no member of this pool has a twin; were they trained by another grid?")
    found = negate(context, settings.method, settings.settings, contrasts, "merged")
    return replace(found, seconds={**found.seconds, "twins": spent})
