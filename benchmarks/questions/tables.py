"""Numbers with their spread, and Markdown tables of them."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A mean with its standard error; of one value alone, without."""

    mean: float
    error: float | None

    @staticmethod
    def of(values: Iterable[float]) -> "Spread":
        """Return mean and standard error, s / √n."""
        known = list(values)
        error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
        return Spread(statistics.fmean(known), error)

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.error is None else f"{self.mean:.1f} ± {self.error:.1f}"


def markdown(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a table whose first column is text, and the others numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *lines]) + "\n"
