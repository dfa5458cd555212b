"""One judge for all methods: the scores that selection sees of a model, and their order by the run's objective."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from negmerge.experiment.selecting import Selector
from negmerge.selection import LASTING, floors_of, rank_models
from negmerge.unlearning.context import Rank


@dataclass(frozen=True)
class Judge:
    """Judges the models of one seed against its base, by what chooses α for the merging methods."""

    selector: Selector
    base: Path

    @cached_property
    def base_scores(self) -> dict[str, float]:
        """What selection sees of the base."""
        return self.scores(self.base)

    def scores(self, checkpoint: Path) -> dict[str, float]:
        """Return what selection sees of a model: forget and retain accuracy, and the objective's own score."""
        model = self.selector.task.open(checkpoint, self.selector.device)
        return self.selector.candidate_scores(model, self.selector.rule.objective, self.base)

    def rank(self, scores: Mapping[str, float]) -> Rank:
        """Return what orders models by the objective, the smallest first; see `rank_models`.

        Where that is lasting, models of which nobody knows what comes back are ordered by retain-floor.
        """
        rule = self.selector.rule
        objective = "retain-floor" if rule.objective == LASTING and LASTING not in scores else rule.objective
        floors = floors_of(self.base_scores, objective, rule.floor_share, rule.floor_scores)
        return rank_models(scores, objective, floors=floors, gone=rule.gone_at)
