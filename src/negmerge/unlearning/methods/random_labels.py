"""Random labels: teach the model anything but the truth about what is to be forgotten."""

from pydantic import Field

from negmerge.tasks.task import Classifies
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, fit_base
from negmerge.unlearning.relabelling import random_label_batches

KIND = "train"
NEEDS = ("forget", "retain")
SUMMARY = "train on forget rows with random labels, then on the retain rows, in every epoch"
REFERENCE = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (arXiv 1911.04933)"
REQUIRES = (Classifies,)
SEARCH = {"lr": (1e-4, 1e-3, 1e-2, 1e-1)}


class Settings(SgdSettings):
    """How to train; the learning rate is searched unless given."""

    retain: bool = Field(True, description="whether each epoch also passes over the retain rows")


def needs(settings: Settings) -> tuple[str, ...]:
    """Return the data that the method uses with these settings."""
    return NEEDS if settings.retain else ("forget",)


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise the cross-entropy with labels y ~ uniform{1 … K} on the forget rows, then that on the retain rows.

    In every epoch the labels are drawn anew (the true one may be among them) and the forget rows come first; without
    `retain` there is no second pass.

    Raises NegmergeError where training diverges.

    Source: the row RL of SalUn (arXiv 2310.12508).
    """

    def prepare() -> Fitting:
        batches, steps = random_label_batches(context.data, settings, settings.retain)
        return Fitting(batches, steps)

    return fit_base(context, settings, prepare)
