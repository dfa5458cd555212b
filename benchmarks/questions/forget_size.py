"""How large the forget set is: from a tenth of the training rows down to one of them, on the base of the draw."""

from collections.abc import Sequence
from typing import Any

from questions.draws import Draw, Row
from questions.tables import Spread, markdown

TITLE = "How large the forget set is"
SHARES = (0.03, 0.01, 0.003, 0.001, 0.0)  # 0: a single row; a tenth is the draw itself
GRID = {"lr": [0.02, 0.05, 0.1], "epochs": [10, 30]}
POLICIES = ("recalibrate", "keep", "frozen")  # frozen: members are trained with the statistics of the base
MERGES: dict[str, tuple[str, dict[str, Any], float | None]] = {
    "consensus": ("consensus", {}, None),
    "consensus of 75 %": ("consensus", {"threshold": 0.75}, None),
    "uniform": ("uniform", {}, None),
    "uniform, projected, λ = 10": ("uniform", {}, 10.0),
}


def measure(draw: Draw) -> list[Row]:
    """Return a row for each size, policy for running statistics and merge; a Retrain model and six members for each.

    The statistics of a batch of one row do not exist, so a single row is forgotten with those of the base.
    """
    found = []
    for share in SHARES:
        rows = len(draw.material.parts["forget"]) + len(draw.material.parts["retain"])
        count = max(1, round(share * rows))
        for policy in POLICIES if count > 1 else ("keep", "frozen"):
            smaller = Smaller(draw, count, policy)
            for label, merge in MERGES.items():
                row = smaller.row(smaller.members, *merge)
                told = {"rows": count, "policy": policy, "merge": label, "base": smaller.base["gap"]}
                found.append({**told, **row})
    return found


class Smaller(Draw):
    """A draw whose request is the first rows of another's, on the same base."""

    def __init__(self, draw: Draw, count: int, policy: str) -> None:
        place = draw.work / "sizes" / f"{count}-rows"
        place.mkdir(parents=True, exist_ok=True)
        names = place / "rows.json"
        if not names.exists():
            names.write_text(str(draw.sample("forget", count, "size").tolist()))
        buffers = f"{{recalibrate: forget, rows: {max(2, count)}}}" if policy == "recalibrate" else "keep"
        changes = [
            f"data.forget={{rows: {names}}}",
            f"base={{checkpoint: {draw.run.base}}}",
            f"pool.grid={GRID}",
            f"buffers={buffers}",
            *(["pool.train.freeze_statistics=true"] if policy == "frozen" else []),
        ]
        if draw.config.reference is not None:
            settings = draw.config.base.train.model_dump(mode="json", exclude_unset=True)
            changes.append(f"reference={{train: {settings}}}")
        run = place / ("run-frozen" if policy == "frozen" else "run")
        self._begin(draw.path, [*draw.changes, *changes], run, draw.number)
        self.work = place / policy


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each size, policy and merge, its mean over the draws."""
    rows = [row for draw in draws for row in draw]
    lines = []
    for count in sorted({row["rows"] for row in rows}, reverse=True):
        for policy in POLICIES:
            for merge in MERGES:
                own = [r for r in rows if (r["rows"], r["policy"], r["merge"]) == (count, policy, merge)]
                if not own:
                    continue
                scores = [Spread.of(row[key] for row in own) for key in ("base", "gap", "forget", "retain", "test")]
                told = [count, policy, merge, len(own), f"{100 * Spread.of(row['kept'] for row in own).mean:.0f}"]
                lines.append([*told, *scores])
    header = ["rows", "statistics", "merge", "n", "kept %", "gap of doing nothing", "gap", "forget", "retain", "test"]
    return markdown(header, lines)
