"""Which split of a data set serves as its train and which as its test table, and how splits are spelt on disk."""

from typing import Annotated

from pydantic import AfterValidator

VALIDATION = ("val", "valid", "validation")  # one split, however a data set spells it


def _check(value: dict[str, str]) -> dict[str, str]:
    for part in value:
        if part not in ("train", "test"):
            raise ValueError(f"splits: {part!r} is not one of train and test")
    return value


Splits = Annotated[dict[str, str], AfterValidator(_check)]
SPLITS = "which split serves as train and as test; one that is not named keeps its name"


def spellings(split: str) -> tuple[str, ...]:
    """Return what a split may be called on disk, its own name first.

    >>> spellings("valid"), spellings("test")
    (('valid', 'val', 'validation'), ('test',))
    """
    return (split, *(name for name in VALIDATION if name != split)) if split in VALIDATION else (split,)
