"""Rows that go beyond one merge: what hangs on the choice of α goes with it, and their curves are their own."""

import pytest
from test_going_on import config, without_times

from negmerge.experiment.pipeline import run

ROWS = [
    {"name": "alpha-by-layer", "evaluations": 4, "blocks": 1},
    {"name": "two-step", "members": 1, "share": 1.0, "first": 1.0},
]


def rows_of(place, **selection):
    """The rows of a run whose α are 0, 0.4 and 0.8: never 1, which is what two steps are negated by."""
    chosen = {"search": "grid", "step": 0.4, **selection}
    return run(config(methods=ROWS, selection=chosen), place)["methods"]


@pytest.mark.heavy(25)
def test_another_choice_gives_what_a_new_run_gives(tmp_path):
    first = rows_of(tmp_path / "run", floor=0.1, max_alpha=0.4)
    again = rows_of(tmp_path / "run", floor=0.1)
    assert without_times(again) == without_times(rows_of(tmp_path / "new", floor=0.1))
    assert again["alpha-by-layer"]["alpha"] == 0.8 and first["alpha-by-layer"]["alpha"] == 0.0
    for row in again.values():
        at = next(point for point in row["curve"] if point["alpha"] == row["alpha"])
        own = row.get("by_layer") or row["two_step"]
        assert {key: at[key] for key in own["scores"]} == own["scores"] and row["curve"][0]["alpha"] == 0.0
    assert again["two-step"]["two_step"]["taken"] and again["two-step"]["alpha"] == 1.0
