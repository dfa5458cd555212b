"""What selection sees of a run, and the choice of α for a merged vector."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.checkpoints import write_bytes_atomic
from negmerge.errors import DivergedError, InputError
from negmerge.experiment.choices import Buffers, Recalibrate, SelectionConfig
from negmerge.experiment.returning import ReturningAt, Returns
from negmerge.requests.split_files import PARTS
from negmerge.scores import HOLDOUT, Columns, Draw, Score, average_gap, columns_needed, holdout_score
from negmerge.seeding import derive_seed
from negmerge.selection import LASTING, OBJECTIVES, Selection, choose_alpha
from negmerge.selection.buffers import recalibrate
from negmerge.selection.negated_model import NegatedModel, apply_vector
from negmerge.tasks.task import TESTED, Task

ATTACK_ROWS = 2000  # members and as many non-members; the reported attack takes up to 10,000, at 20 times the cost
RECALIBRATION_BATCH = 250
# The part that selection sees in the place of another, and the score's name then.
STAND_IN = {"test": "validation", "test_forget": "validation_forget"}

Tell = Callable[[float, dict[str, float]], None]


@dataclass(frozen=True)
class Selector:
    """The rows that selection may look at, and how α is chosen from them.

    match-holdout compares the forget rows with how the *base* treats the validation rows: Retrain, made the same way,
    treats the forget rows like that. (Compared with validation under θ(α) itself, damage to both would count as
    likeness.)

    In the average gap of match-reference, or those parts that the rule's `match` names, retain accuracy is that of
    the fixed sample, validation stands in the place of test, also as the non-members of the attack, and the attack is
    fitted on at most 2,000 rows of either kind.
    """

    task: Task
    rows: Mapping[str, Tensor]
    rule: SelectionConfig
    seed: int
    device: str
    reference: Path | None = None
    kind: str = "class"
    _tests: dict[Path, Returns] = field(default_factory=dict, init=False, repr=False, compare=False)
    _unseen: dict[Path, Mapping[str, Columns]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rule.objective == "match-reference" and self.reference is None:
            raise InputError("selection: match-reference needs a reference: {train: base}, or {checkpoint: FILE}")
        parts = [score.name for score in self.task.scores if score.in_gap]
        unknown = [name for name in self.rule.match or () if name not in parts]
        if unknown:
            raise InputError(f"selection: match: {unknown[0]} is no part of the average gap; choose among {parts}")
        if self.rule.objective == LASTING and self.reference is None:
            raise InputError("selection: lasting needs a reference: {train: base}, or {checkpoint: FILE}")
        labelled = TESTED in self.task.BY_GROUP[0]  # of groups that are no classes no test rows are told
        if self.rule.objective == "match-holdout" and labelled and len(self.rows["validation_forget"]):
            raise InputError(
                "selection: match-holdout compares the forget rows with unseen rows of the same kind, and a base that "
                "knows the kind recognises those too; to forget a class or a source use retain-floor or match-reference"
            )

    @cached_property
    def parts(self) -> dict[str, Tensor]:
        """The rows that selection sees, by part; those of validation also in the place of test.

        `forget` is a fixed sample of the request's own rows, `validation_forget` are held-out rows of their kind, if
        there are any; `retain` is a fixed sample of the retain rows, or of the validation rows where the config says
        so.
        """
        return {
            "forget": self._sample(self.rows["forget"], "selection, forget", self.rule.forget_rows),
            "retain": self._sample(self.kept_rows, "selection", self.rule.retain_rows),
            **{part: self.rows[part] for part in ("validation", "validation_forget")},
            **{part: self.rows[stand_in] for part, stand_in in STAND_IN.items()},
            **{part: rows for part, rows in self.rows.items() if part not in PARTS},
        }

    @property
    def kept_rows(self) -> Tensor:
        """The rows on whose sample the floor is held."""
        return self.rows["validation" if self.rule.floor_on == "validation" else "retain"]

    def _sample(self, rows: Tensor, purpose: str, most: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, purpose))
        return rows[torch.randperm(len(rows), generator=generator)[:most].sort().values]

    def _scores_of(self, objective: str) -> list[Score]:
        """Return the scores of every curve, and those that an objective looks at."""
        scores, matching = self.task.scores, objective == "match-reference"
        floors = self.rule.floor_scores
        found = [s for s in scores if s.in_curve or (matching and s.in_gap) or _called(s) in floors]
        own = any(score.name == HOLDOUT.name for score in scores)
        return [*found, holdout_score(self.task.KNOWN)] if objective == "match-holdout" and not own else found

    def _observe(self, model: nn.Module, needed: Mapping[str, list[str]]) -> Mapping[str, Columns]:
        return self.task.observe(model, {part: self.parts[part] for part in needed}, needed)

    def unseen(self, base: Path, needed: Mapping[str, list[str]]) -> Mapping[str, Columns]:
        """Return how the base treats what it has not seen; it is asked once."""
        if base not in self._unseen:
            self._unseen[base] = self._observe(self.task.open(base, self.device), needed)
        return self._unseen[base]

    def scores(self, model: nn.Module, objective: str, base: Path) -> dict[str, float]:
        """Return the forget and the retain score, and what the objective looks at."""
        wanted = self._scores_of(objective)
        observed: dict[Any, Mapping[str, Columns]] = {"model": self._observe(model, columns_needed(wanted))}
        of_base = columns_needed(wanted, "base")
        if of_base:
            observed["base"] = self.unseen(base, of_base)
        draw = Draw(derive_seed(self.seed, "selection attack"), ATTACK_ROWS)
        found = {_called(score): score.of(observed, draw) for score in wanted}
        return {name: value for name, value in found.items() if value is not None}

    def candidate_scores(self, model: nn.Module, objective: str, base: Path) -> dict[str, float]:
        """Return what `scores` returns and, for match-reference, the `gap` to the reference in the parts that count."""
        scores = self.scores(model, objective, base)
        if objective == "match-reference":
            scores["gap"] = average_gap(scores, self.reference_scores, self._matched).total
        return scores

    @property
    def _matched(self) -> list[str]:
        wanted = self.rule.match
        return [_called(s) for s in self.task.scores if s.in_gap and (wanted is None or s.name in wanted)]

    @cached_property
    def reference_scores(self) -> dict[str, float]:
        """The parts of the average gap for the reference, measured as selection measures a candidate."""
        assert self.reference is not None
        model = self.task.open(self.reference, self.device)
        return self.scores(model, "match-reference", self.reference)

    def negated(self, base: Path, vector: Path, buffers: Buffers) -> NegatedModel:
        """Return θ(α) for a merged vector, with what the policy does to the buffers."""
        adapt = None
        if isinstance(buffers, Recalibrate):
            rows = self._sample(self.rows[buffers.recalibrate], "buffers", buffers.rows)
            adapt = self._recalibrator(rows)
        return NegatedModel(self.task.open(base, self.device), vector, base, adapt)

    def score_at(self, base: Path, vector: Path, alpha: float, buffers: Buffers) -> dict[str, float]:
        """Return what selection sees of θ(α); the worst scores there are where it answers with NaN or Inf."""
        aim = self.rule.objective
        try:
            return self.candidate_scores(self.negated(base, vector, buffers).set_alpha(alpha), aim, base)
        except DivergedError:
            return self._worst(aim)

    def weights_at(self, base: Path, vector: Path, alpha: float, buffers: Buffers) -> dict[str, Tensor]:
        """Return the weights of θ(α), with what the policy does to the buffers."""
        if isinstance(buffers, Recalibrate):
            return self.task.trained(self.negated(base, vector, buffers).set_alpha(alpha))
        return apply_vector(base, vector, alpha)

    def _recalibrator(self, rows: Tensor) -> Callable[[nn.Module], None]:
        pieces = rows.tensor_split(max(1, -(-len(rows) // RECALIBRATION_BATCH)))  # equal to one row

        def batches() -> Iterator[tuple[int, Any]]:
            return ((len(piece), self.task.batch(piece, self.device)) for piece in pieces)

        return lambda model: recalibrate(model, batches(), self.task.loss)

    def choose(
        self,
        base: Path,
        vector: Path,
        curve_file: Path,
        tell: Tell,
        *,
        buffers: Buffers = "keep",
        objective: str | None = None,
        candidates: int | None = None,
    ) -> Selection:
        """Choose α for a merged vector; the points evaluated before an interruption are read from `curve_file`.

        The seconds of all points lie beside it. `tell(alpha, scores)` hears of every point that is evaluated now;
        `objective` stands in for the config's, `candidates` for how many α are tested for what comes back.
        """
        seconds_file = curve_file.with_suffix(".seconds.json")
        known: dict[str, dict[str, float]] = json.loads(curve_file.read_text()) if curve_file.exists() else {}
        spent: float = json.loads(seconds_file.read_text()) if seconds_file.exists() else 0.0
        negated: list[NegatedModel] = []
        rule, aim = self.rule, objective or self.rule.objective

        def evaluate(alpha: float) -> dict[str, float]:
            nonlocal spent
            key = f"{alpha:.10g}"
            if key not in known:
                started = time.perf_counter()
                if not negated:
                    negated.append(self.negated(base, vector, buffers))
                try:
                    scores = self.candidate_scores(negated[0].set_alpha(alpha), aim, base)
                except DivergedError:
                    scores = self._worst(aim)
                known[key] = scores
                spent += time.perf_counter() - started
                curve_file.parent.mkdir(parents=True, exist_ok=True)
                write_bytes_atomic(curve_file, json.dumps(known).encode())
                write_bytes_atomic(seconds_file, json.dumps(spent).encode())
                tell(alpha, scores)
            return known[key]

        def model_at(alpha: float) -> dict[str, Tensor]:
            if not negated:
                negated.append(self.negated(base, vector, buffers))
            return self.task.trained(negated[0].set_alpha(alpha))

        def told(alpha: float, positions: dict[str, float]) -> None:
            tell(alpha, {**evaluate(alpha), **positions})

        tested: ReturningAt | None = None
        if aim == LASTING:
            tested = ReturningAt(self._returns(base), model_at, curve_file.with_suffix(".lasting.json"), told)
        selection = choose_alpha(
            evaluate,
            aim,
            comes_back=tested,
            candidates=candidates or rule.candidates,
            floor=rule.floor_share,
            floor_on=rule.floor_scores,
            search=rule.search,
            step=rule.step,
            max_alpha=rule.max_alpha,
            margin=rule.margin,
            gone=rule.gone_at,
        )
        return replace(selection, seconds=spent + (tested.seconds if tested else 0.0))

    def _returns(self, base: Path) -> Returns:
        """Return the tests of what comes back; curves of base and Retrain are made once for all vectors of a seed."""
        assert self.reference is not None
        if base not in self._tests:
            parts = {**self.rows, **self.parts}
            self._tests[base] = Returns(
                self.task, parts, base, self.reference, self.seed, self.kind, self.device, self.rule.relearning
            )
        return self._tests[base]

    def _worst(self, objective: str) -> dict[str, float]:
        """Return the scores of a candidate that answers with NaN or Inf: the worst there are."""
        aim = {key: 100.0 for key in OBJECTIVES[objective].keys[:1]}
        return {"forget": 0.0, **dict.fromkeys(self.rule.floor_scores, 0.0), "retain": 0.0, **aim}

    def oracle(
        self, base: Path, vector: Path, curve_file: Path, chosen: float, tell: Tell, buffers: Buffers
    ) -> dict[str, float]:
        """Return what the oracle, match-reference, would have chosen for a vector, and what choosing `chosen` costs.

        `alpha` and `gap` are the oracle's; `gap_chosen` is the gap at `chosen`; all as selection measures them.
        """
        best = self.choose(base, vector, curve_file, tell, buffers=buffers, objective="match-reference")
        gaps = {point.alpha: point.scores["gap"] for point in best.curve}
        if chosen not in gaps:
            model = self.negated(base, vector, buffers).set_alpha(chosen)
            gaps[chosen] = self.candidate_scores(model, "match-reference", base)["gap"]
        return {"alpha": best.alpha, "gap": gaps[best.alpha], "gap_chosen": gaps[chosen]}


def _called(score: Score) -> str:
    """Return the name of a score in the curve: that of the part that selection sees."""
    return STAND_IN.get(score.name, score.name)
