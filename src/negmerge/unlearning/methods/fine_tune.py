"""Fine-tuning on the retain rows, and trusting that what is not rehearsed fades."""

from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.fitting import Fitting, SgdSettings, batches_of, fit_base

KIND = "train"
NEEDS = ("retain",)
SUMMARY = "go on training on the retain rows alone; forgetting is left to chance"
REFERENCE = "Warnecke et al., Machine Unlearning of Features and Labels, NDSS 2023 (arXiv 2108.11577)"
SEARCH = {"lr": (1e-4, 1e-3, 1e-2, 1e-1)}


class Settings(SgdSettings):
    """How to train; the learning rate is searched unless given."""


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Minimise the cross-entropy on the retain rows, from the base: θ ← θ − η · ∇ mean over D_r of CE(θ).

    Raises NegmergeError where training diverges.

    Source: the row FT of SalUn (arXiv 2310.12508).
    """

    def prepare() -> Fitting:
        batches = batches_of(context.data, context.data.retain, settings, "retain")
        return Fitting(batches, batches.steps)

    return fit_base(context, settings, prepare)
