"""α by layer: the merged vector's stem, blocks, head and norms are scaled one after the other."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_bytes_atomic
from negmerge.errors import InputError
from negmerge.unlearning.context import Context, Outcome, with_own_point
from negmerge.unlearning.displacing import write_scaled
from negmerge.unlearning.layer_groups import layer_groups
from negmerge.unlearning.merge_choice import MergeChoice
from negmerge.unlearning.negation import negate

KIND = "select"
NEEDS = ("pool", "forget")
SUMMARY = "a merge whose groups of layers get an α each, searched coordinate by coordinate"
REFERENCE = "layer-wise coefficients as in Yang et al., AdaMerging, ICLR 2024 (arXiv 2310.02575), searched not trained"


class Settings(MergeChoice):
    """Which merge is scaled, and how long the search may take."""

    evaluations: int = Field(30, ge=1, description="models that are evaluated at most, beyond the search for one α")
    blocks: int = Field(4, ge=1, description="runs of blocks that get an α of their own, at most")
    factor: float = Field(2.0, gt=1, le=10, description="by which an α is first raised or lowered")


def trials(members: int) -> int:
    """Return for how many vectors α is chosen."""
    return 1


def unlearn(context: Context, settings: Settings) -> Outcome:
    """Merge and choose one α, as every merge does; then scale the groups of `layer_groups` one after the other.

        θ = θ₀ − α · Σ_g s_g τ_g;   s_g ← the best of s_g, s_g·f, s_g/f by the run's objective, all others as they are

    All s start at 1. A direction that helps is followed as long as it does. After a round over all groups f becomes
    √f; the search ends after `evaluations` models, or where f is below 1.1. Equals keep what is there. Groups of a
    vector that are 0 throughout, such as norms that a projection leaves out, are passed over, and so are all where α
    is 0. Evaluated points are kept, and read back after an interruption.

    Raises InputError for a merged vector that is 0 everywhere.
    """
    whole = negate(context, settings.method, settings.settings, context.members, "merged")
    assert whole.vector is not None and whole.selection is not None
    vector, alpha, first = whole.vector, whole.selection.alpha, dict(whole.selection.scores)
    file, scaled = context.chosen / "by-layer.json", context.chosen / "by-layer.safetensors"
    if not file.exists():
        context.chosen.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        search = _Search(context, vector, alpha, settings, first)
        scales, scores = search.run()
        write_scaled(scaled, vector, search.factors(scales))
        facts = {"scales": scales, "scores": scores, "evaluations": len(search.known), "groups": search.sizes}
        write_bytes_atomic(file, json.dumps({**facts, "seconds": time.perf_counter() - started}).encode())
    facts = json.loads(file.read_text())
    return replace(
        whole,
        vector=scaled,
        selection=with_own_point(whole.selection, alpha, facts["scores"]),
        facts={**whole.facts, "by_layer": {key: facts[key] for key in ("scales", "groups", "evaluations", "scores")}},
        seconds={**whole.seconds, "by layer": facts["seconds"]},
    )


class _Search:
    """Coordinate search of the scales of one vector; every evaluated model is kept in a file."""

    def __init__(
        self, context: Context, vector: Path, alpha: float, settings: Settings, first: dict[str, float]
    ) -> None:
        self.context, self.vector, self.alpha, self.settings, self.first = context, vector, alpha, settings, first
        opened = open_checkpoint(context.base)
        moving = {name for name, delta in read_state_dict(vector).items() if delta.any()}
        shapes = {name: opened.shape(name) for name in opened.names if name in moving}
        if not shapes:
            raise InputError("alpha-by-layer: the merged vector is 0 everywhere; nothing can be scaled")
        self.groups = layer_groups(shapes, settings.blocks)
        self.sizes = {group: sum(math.prod(shapes[name]) for name in names) for group, names in self.groups.items()}
        self._file = context.chosen / "by-layer.points.json"
        self.known: dict[str, dict[str, float]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def factors(self, scales: dict[str, float]) -> dict[str, float]:
        """Return the factor of each tensor."""
        return {name: scales[group] for group, names in self.groups.items() for name in names}

    def run(self) -> tuple[dict[str, float], dict[str, float]]:
        """Return the best scales, and what selection sees there."""
        best, scores, used, factor = dict.fromkeys(self.groups, 1.0), self.first, 0, self.settings.factor
        while factor >= 1.1 and self.alpha:
            for group in self.groups:
                for direction in (factor, 1.0 / factor):
                    moved = False
                    for trial in self._steps(best, group, direction):
                        if used == self.settings.evaluations:
                            return best, scores
                        used += 1
                        found = self._scores(trial)
                        if not self.context.rank(found) < self.context.rank(scores):
                            break
                        best, scores, moved = trial, found, True
                    if moved:
                        break
            factor = math.sqrt(factor)
        return best, scores

    def _steps(self, scales: dict[str, float], group: str, factor: float) -> Iterator[dict[str, float]]:
        while True:
            scales = {**scales, group: scales[group] * factor}
            yield scales

    def _scores(self, scales: dict[str, float]) -> dict[str, float]:
        key = json.dumps({group: f"{value:.6g}" for group, value in scales.items()})
        if key not in self.known:
            trial = self.context.chosen / "by-layer.trial.safetensors"
            write_scaled(trial, self.vector, self.factors(scales))
            self.known[key] = self.context.score(trial, self.alpha)
            trial.unlink()
            write_bytes_atomic(self._file, json.dumps(self.known).encode())
        return self.known[key]
