"""Doing nothing: the row that every other one has to beat."""

from pydantic import BaseModel, ConfigDict

from negmerge.unlearning.context import Context, Outcome

KIND = "train"
NEEDS = ()
SUMMARY = "do nothing (α = 0): the original model as a row, the gap that is there to be closed"
REFERENCE = "a control"


class Settings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Return θ₀, every tensor as it is; it costs nothing."""
    return Outcome(checkpoint=context.base)
