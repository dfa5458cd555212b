"""The whole curve of the test relearning, where it was made: a position alone does not show how fast."""

from typing import Any

from negmerge.report.figures.relearnt import LINES, relearnt_figure
from negmerge.report.inputs import Json
from negmerge.report.markup import markup
from negmerge.report.scores import known_of, nouns

TEST = "relearning"


def relearning_section(results: Json) -> dict[str, Any] | None:
    """Return the picture of the rate that counts, its name and its steps; None where no curve stands in the results."""
    tests = (results.get("evidence") or {}).get("tests") or []
    for test in tests:
        rate = test["counted"].get("name")
        facts = (test.get("facts") or {}).get(rate)
        if test["name"] != TEST or not isinstance(facts, dict) or not _is_whole(facts.get("curves")):
            continue
        every = max(1, round(facts.get("every") or 1))
        curves = {role: [float(value) for value in facts["curves"][role]] for role in LINES}
        return {
            "figure": markup(
                relearnt_figure(curves, every, known_of(results, f"other forgotten {nouns(results)}"), "relearnt")
            ),
            "rate": rate,
            "steps": every * (len(curves["reference"]) - 1),
        }
    return None


def _is_whole(curves: Any) -> bool:
    return isinstance(curves, dict) and all(
        isinstance(curves.get(role), list)
        and curves[role]
        and all(isinstance(value, int | float) for value in curves[role])
        for role in LINES
    )
