"""Retraining from scratch without the forget rows: exact, and dear."""

from pydantic import BaseModel, ConfigDict, Field

from negmerge.tasks.task import Starts
from negmerge.training import TrainSettings
from negmerge.unlearning.context import Context, Outcome

KIND = "train"
NEEDS = ("retain",)
SUMMARY = "train from scratch on the retain rows alone: exact, what every other method is compared with"
REFERENCE = "the definition of exact unlearning; Bourtoule et al., Machine Unlearning, 2021 (arXiv 1912.03817)"

REQUIRES = (Starts,)
SCRATCH = EXACT = True


class Settings(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid")

    train: TrainSettings | None = Field(None, description="training settings; those of the base unless given")
    seed: int = Field(0, ge=0, description="another one trains anew, from other weights and batches: the gap's noise")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Return a model trained from scratch on the retain rows: θ* = train(D_r), from the seed that the base began with.

    The run's own reference serves, where it was trained with the same settings. Without settings of its own the method
    takes those of the base, or else of the reference. With another `seed` than 0 the row is a second Retrain model: its
    gap is what chance alone makes of it.

    Raises InputError where there are none, NegmergeError where training diverges.
    """
    checkpoint, seconds = context.retrain(settings.train, context.directory, settings.seed)
    return Outcome(checkpoint=checkpoint, seconds={"training": seconds})
