"""Does leaving out small weights bring back what was forgotten? What only hides it may sit in these."""

from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from negmerge.evidence.altering import change_matrices, read_altered
from negmerge.evidence.protocol import Cost, EvidenceSettings, Found
from negmerge.evidence.subject import Subject

SUMMARY = "what comes back where the smallest weights of every matrix are set to zero"
COLUMNS = ("correct",)
WEIGHT = "refutation"  # that pruning restores nothing does not tell that nothing is there
REFERENCE = "Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015 (arXiv 1506.02626)"


class Settings(EvidenceSettings):
    """How much is left out."""

    percent: tuple[float, ...] = Field((30.0, 50.0), min_length=1, description="of each matrix; the worst counts")


def pruned(weight: Tensor, percent: float) -> Tensor:
    """Return a weight, of any shape, with its smallest magnitudes set to zero: ⌊percent · n / 100⌋ of n, at most.

    Elements that equal the smallest one kept are kept. The same dtype.

    >>> pruned(torch.tensor([[3.0, -1.0, 1.0, -2.0]]), 50)
    tensor([[ 3.,  0.,  0., -2.]])
    >>> pruned(torch.tensor([[3.0, -1.0, 1.0, -2.0]]), 25)
    tensor([[ 3., -1.,  1., -2.]])
    """
    sizes = weight.abs().flatten()
    count = min(int(percent * len(sizes) / 100 + 1e-9), len(sizes) - 1)
    if count < 1:
        return weight.clone()
    least = sizes.kthvalue(count + 1).values
    return torch.where(weight.abs() >= least, weight, torch.zeros_like(weight))


def cost(settings: Settings, rows: Mapping[str, int]) -> Cost:
    """Return the rows that pass through the three models, pruned and not."""
    return Cost(evaluated=3 * (1 + len(settings.percent)) * rows["forget"])


def run(subject: Subject, settings: Settings) -> Found:
    """Prune all three models alike and look at the forget rows again; scores and facts as in `read_altered`.

    By magnitude, each parameter of two dimensions or more by itself; nothing is trained afterwards.
    """
    changes = {
        f"{percent:g} %": partial(change_matrices, change=partial(pruned, percent=percent))
        for percent in settings.percent
    }
    readings, facts = read_altered(subject, changes)
    found = ", ".join(f"{facts[name]['model']:.0f} % without {name} of the weights" for name in changes)
    are, of = ("are right in", "in") if subject.counts else (f"have a mean {subject.task.MEASURE} of", "of")
    return Found(readings, f"The forgotten rows {are} {found}; {of} {facts['before']['model']:.0f} % with all.", facts)
