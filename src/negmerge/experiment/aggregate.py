"""Several seeds in one table: means beside standard deviations, and the rows of each seed."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

COPIED = (
    "label", "method", "kind", "needs", "buffers", "settings", "member", "taken", "search", "curve", "layers",
    "projection", "lasting", "floor", "note", "open_end",
)  # fmt: skip


def aggregate(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the results of several seeds as one: every number of a row is a mean over the seeds.

    `std` holds the standard deviations (ddof 1) and `seeds` the rows of each seed, in the order of the config.
    What has no mean (the curve, the layers, the members taken, the search) is that of the first seed.
    A number that is missing in one seed is missing in the mean.
    """
    first = runs[0]
    methods = {
        name: average_rows([run["methods"][name] for run in runs if name in run["methods"]])
        for name in first["methods"]
    }
    reference = average_rows([run["reference"] for run in runs]) if first["reference"] else None
    seen: list[dict[str, str]] = []
    for seed, run in zip(first["seeds"], runs, strict=True):
        seen += [{**warning, "text": f"seed {seed}: {warning['text']}"} for warning in run["warnings"]]
    return {
        **first,
        "base": average_rows([run["base"] for run in runs]),
        "reference": reference,
        "methods": methods,
        "warnings": seen,
    }


def average_rows(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of means, with `std` (none of a single row) and `seeds`.

    >>> row = average_rows([{"label": "a", "forget": 1.0}, {"label": "a", "forget": 3.0}])
    >>> row["forget"], round(row["std"]["forget"], 3)
    (2.0, 1.414)
    """
    mean: dict[str, Any] = {}
    std: dict[str, float] = {}
    for key, value in rows[0].items():
        values = [row.get(key) for row in rows]
        if key in COPIED or isinstance(value, str):
            mean[key] = value
        elif isinstance(value, dict):
            mean[key] = {k: _mean([v[k] for v in values if v]) for k in value}
        elif isinstance(value, list):
            mean[key] = [_mean(column) for column in zip(*values, strict=True)]
        else:
            mean[key] = _mean(values)
            if mean[key] is not None and len(rows) > 1:
                std[key] = float(np.std(values, ddof=1))  # type: ignore[arg-type]
    return {**mean, "std": std, "seeds": list(rows)}


def _mean(values: Sequence[Any]) -> float | None:
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return float(np.mean(values))
