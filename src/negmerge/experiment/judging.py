"""One judge for all methods: the scores that selection sees of a model, and their order by the run's objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from negmerge.experiment.measure import Bench
from negmerge.selection import TOLERANCE
from negmerge.unlearning import Rank


@dataclass(frozen=True)
class Judge:
    """Judges the models of one seed against its base."""

    bench: Bench
    base: Path

    @cached_property
    def base_scores(self) -> dict[str, float]:
        """What selection sees of the base."""
        return self.scores(self.base)

    def scores(self, checkpoint: Path) -> dict[str, float]:
        """Return what selection sees of a model: forget and retain accuracy on its samples, in percent."""
        return self.bench.quick_scores(self.bench.classifier.load(checkpoint, self.bench.device))

    def rank(self, scores: Mapping[str, float]) -> Rank:
        """Return what orders models by the objective, the smallest first.

        retain-floor: models that hold the floor (share · the base's retain accuracy) come first, the lowest forget
        accuracy before others, then the highest retain accuracy; behind them those that break it, by retain accuracy.
        """
        floor = self.bench.selection.floor * self.base_scores["retain"]
        if scores["retain"] >= floor - TOLERANCE:
            return 0.0, scores["forget"], -scores["retain"]
        return 1.0, -scores["retain"], scores["forget"]
