"""The threshold: what share of the members must agree, which mean is taken, and what a zero says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from questions.draws import Draw, Row
from questions.tables import Spread, markdown

TITLE = "Which threshold, which mean, which zero rule"
THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ROUNDED = (0.5, 0.75, 1.0)
MEANS = ("all", "agreeing")
ZEROS = ("veto", "abstain")


def measure(draw: Draw) -> list[Row]:
    """Return a row for each threshold and mean, and, where members are rounded to bfloat16, for each zero rule."""
    found = []
    for threshold in THRESHOLDS:
        for mean in MEANS if threshold < 1 else MEANS[:1]:  # where all agree the means are one
            row = draw.row(draw.members, "consensus", {"threshold": threshold, "mean": mean})
            found.append({"threshold": threshold, "mean": mean, "zeros": "veto", "dtype": "float32", **row})
    members = {name: rounded(draw, name) for name in draw.members}
    for threshold in ROUNDED:
        for zeros in ZEROS:
            row = draw.row(members, "consensus", {"threshold": threshold, "zeros": zeros})
            found.append({"threshold": threshold, "mean": "all", "zeros": zeros, "dtype": "bfloat16", **row})
    found.append(
        {"threshold": 0.0, "mean": "all", "zeros": "–", "dtype": "float32", **draw.row(draw.members, "uniform")}
    )
    found.append({"threshold": 0.0, "mean": "all", "zeros": "–", "dtype": "bfloat16", **draw.row(members, "uniform")})
    return found


def rounded(draw: Draw, name: str) -> Path:
    """Return a member as it is when base and member are kept in bfloat16: a change below their spacing is exactly 0."""
    target = draw.work / "bfloat16" / f"{name}.safetensors"
    if not target.exists():
        base, own = read_state_dict(draw.run.base), read_state_dict(draw.members[name])
        changes = {key: own[key].bfloat16().float() - base[key].bfloat16().float() for key in draw.delta(draw.run.base)}
        target.parent.mkdir(parents=True, exist_ok=True)
        write_state_dict(target, {key: torch.add(base[key], changes[key]) if key in changes else value
                                  for key, value in own.items()})  # fmt: skip
    return target


def table(draws: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return a line for each setting, its mean over the draws."""
    keys = [(row["dtype"], row["threshold"], row["mean"], row["zeros"]) for row in draws[0]]
    lines = []
    for key in keys:
        rows = [
            row for draw in draws for row in draw if (row["dtype"], row["threshold"], row["mean"], row["zeros"]) == key
        ]
        dtype, threshold, mean, zeros = key
        name = "uniform" if threshold == 0 else f"{threshold:g}"
        kept, alpha = (statistics_of(rows, field) for field in ("kept", "alpha"))
        scores = [Spread.of(row[field] for row in rows) for field in ("gap", "forget", "retain", "test")]
        lines.append([dtype, name, mean, zeros, f"{100 * kept:.1f}", f"{alpha:.2f}", *scores])
    return markdown(["members", "threshold", "mean", "zeros", "kept %", "α", "gap", "forget", "retain", "test"], lines)


def statistics_of(rows: Sequence[dict[str, Any]], field: str) -> float:
    """Return the mean of a field."""
    return Spread.of(row[field] for row in rows).mean
