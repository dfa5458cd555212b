"""Retraining from scratch without the forget rows: exact, and dear."""

from pydantic import BaseModel, ConfigDict, Field

from negmerge.training import TrainSettings
from negmerge.unlearning import Context, Outcome

KIND = "train"
NEEDS = ("retain",)
SUMMARY = "train from scratch on the retain rows alone: exact, what every other method is compared with"
REFERENCE = "the definition of exact unlearning; Bourtoule et al., Machine Unlearning, 2021 (arXiv 1912.03817)"


class Settings(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid")

    train: TrainSettings | None = Field(None, description="training settings; those of the base unless given")
    seed: int = Field(0, ge=0, description="another one trains anew, from other weights and batches: the gap's noise")


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Return a model trained on the retain rows; the run's own reference serves, where it was trained the same.

    With another `seed` the row is a second Retrain model: its gap is what chance alone makes of it.
    """
    checkpoint, seconds = context.retrain(settings.train, settings.seed)
    return Outcome(checkpoint=checkpoint, seconds={"training": seconds})
