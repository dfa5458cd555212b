"""Scores that are named: by their registered name, or by the path of a file."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from negmerge import registry
from negmerge.errors import InputError, nearest
from negmerge.scores.score import Score

PARTS = ("forget", "retain", "validation", "validation_forget", "test", "test_forget")
PACKAGES = dict.fromkeys(("rouge", "rouge_f1"), ("rouge_score", "negmerge[rouge]"))  # of columns: package, extra
# What stands in a row of results beside its scores.
TAKEN = (
    "label", "method", "kind", "stands_for", "needs", "buffers", "settings", "member", "taken", "search", "curve",
    "layers", "floor", "note", "open_end", "alpha", "lowest_alpha", "gap", "gap_parts", "per_class", "consensus",
    "kept", "merged_elements", "oracle", "projection", "seconds", "seconds_parts", "std", "seeds",
)  # fmt: skip


@dataclass(frozen=True)
class ScoreFile:
    """What the file of a score holds: one line about it, and the score."""

    SUMMARY: str
    SCORE: Score


def score_file(name: str) -> ScoreFile:
    """Return what a score's file holds.

    Raises InputError for an unknown name, a file without a Score, and a score that needs a package that is not there.
    """
    found = registry.read("scores", name, ScoreFile)
    if not isinstance(found.SCORE, Score):
        raise InputError(f"score {name!r}: SCORE must be a negmerge.scores.Score, got {type(found.SCORE).__name__}")
    for need in found.SCORE.needs:
        package, extra = PACKAGES.get(need.column, ("", ""))
        if package and importlib.util.find_spec(package) is None:
            raise InputError(
                f"evaluation: scores: {name} needs the package {package.replace('_', '-')}; pip install {extra!r}, or "
                "leave the score out"
            )
    return found


def further_scores(
    names: Iterable[str],
    known: Iterable[Score],
    columns: Iterable[str],
    *,
    parts: Iterable[str] = (),
    reference: bool = False,
) -> tuple[Score, ...]:
    """Return the scores of these names, beside the `known` ones of a task that can observe these `columns`.

    `parts` are those that the task has beside the six of a split, `reference` says whether there is a Retrain model.

    Raises InputError for a score whose name is taken, that is in the gap, or that needs a column or a model that is
    not observed.
    """
    found: list[Score] = []
    columns, there = list(columns), list(dict.fromkeys([*PARTS, *parts]))
    for name in names:
        score = score_file(name).SCORE
        if any(other.name == score.name for other in (*known, *found)):
            raise InputError(f"evaluation: scores: {name}: there is a score {score.name!r} already; leave it out")
        if score.name in TAKEN:
            raise InputError(f"evaluation: scores: {name}: {score.name!r} is a fact of every row; name it otherwise")
        if score.in_gap or score.in_curve:
            raise InputError(f"evaluation: scores: {name}: only a task's own scores are in_gap or in_curve")
        for need in sorted(score.needs):
            if need.part not in there:
                raise InputError(
                    f"evaluation: scores: {name} needs the part {need.part!r}, which there is not"
                    f"{nearest(need.part, there)}; there are {', '.join(there)}"
                )
            if need.role == "reference" and not reference:
                raise InputError(f"evaluation: scores: {name} compares with Retrain; give reference: {{train: base}}")
            if need.role == "base" or need.column not in columns:
                raise InputError(
                    f"evaluation: scores: {name} needs the column {need.column!r} of the {need.role}, which is not "
                    f"observed; there are {', '.join(columns) or 'none'} of the model"
                )
        found.append(score)
    return tuple(found)
