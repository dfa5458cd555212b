"""The average gap to Retrain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from negmerge.errors import InputError

PARTS = ("retain", "forget", "test", "membership")  # of the published gap


@dataclass(frozen=True)
class Gap:
    """The mean of the absolute differences, and each of them, in percentage points."""

    total: float
    parts: dict[str, float]


def average_gap(row: Mapping[str, float], reference: Mapping[str, float], names: Sequence[str] = PARTS) -> Gap:
    """Return the average gap: the mean over the named scores of |score − score of the Retrain model|.

    Both mappings hold every named score, in percent; those of image classification are retain, forget and test
    accuracy and the membership attack. Raises InputError where one of them is missing.

    >>> one = {"retain": 99.0, "forget": 90.0, "test": 90.0, "membership": 10.0}
    >>> average_gap(one, {**one, "forget": 94.0}).total
    1.0

    Source: Fan et al., SalUn, ICLR 2024 (arXiv 2310.12508).
    """
    for name, values in (("row", row), ("reference", reference)):
        missing = [part for part in names if part not in values]
        if missing:
            raise InputError(f"the average gap needs {', '.join(names)}; the {name} lacks {', '.join(missing)}")
    parts = {part: abs(row[part] - reference[part]) for part in names}
    return Gap(sum(parts.values()) / len(parts), parts)
