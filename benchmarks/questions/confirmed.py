"""Confirmed: the row that was best on the draws above, on a draw that nothing was chosen on, beside its controls."""

from collections.abc import Mapping, Sequence
from typing import Any

from questions.draws import Draw, Row
from questions.tables import markdown

TITLE = "Confirmed on a draw that nothing was chosen on"
CHOSEN = "uniform, projected, λ = 10"  # by the three draws of the other questions
MERGES: dict[str, tuple[str, Mapping[str, Any], float | None]] = {
    CHOSEN: ("uniform", {}, 10.0),
    "uniform": ("uniform", {}, None),
    "consensus": ("consensus", {}, None),
    "consensus of 75 %": ("consensus", {"threshold": 0.75}, None),
    "ties": ("ties", {}, None),
    "magmax": ("magmax", {}, None),
    "random-mask": ("random-mask", {}, None),
    "shuffled-signs": ("shuffled-signs", {}, None),
}


def measure(draw: Draw) -> list[Row]:
    """Return doing nothing, each merge of the whole pool, and a second Retrain: the noise of the yardstick."""
    rows = [{"merge": name, **draw.row(draw.members, *asked)} for name, asked in MERGES.items()]
    return [{"merge": "doing nothing", **draw.base}, *rows, {"merge": "a second Retrain", **second(draw)}]


def second(draw: Draw) -> Row:
    """Return the scores of a model trained as Retrain was, from other weights and in another order."""
    settings = draw.config.base.train
    assert settings is not None
    job = draw.run.trainer.job(
        "second-retrain", draw.work / "second-retrain", draw.material.parts["retain"], settings, part="second Retrain"
    )
    draw.run.trainer.train([job], workers=1, threads=1)
    return draw.scored(job.checkpoint)


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each row of each draw."""
    lines = []
    for row in (row for draw in draws for row in draw):
        alpha = f"{row['alpha']:.2f}" if "alpha" in row else "–"
        scores = [f"{row[name]:.1f}" for name in ("gap", "forget", "retain", "test", "membership")]
        lines.append([row["merge"], *scores, alpha])
    return markdown(["merge", "gap", "forget", "retain", "test", "membership", "α"], lines)
