"""Which split of a data set serves as its train and which as its test table, and how splits are spelt on disk."""

from typing import Annotated

from pydantic import AfterValidator

VALIDATION = ("val", "valid", "validation")  # one split, however a data set spells it
SPELT = (("train", "training"), ("test", "testing"), VALIDATION)


def _check(value: dict[str, str]) -> dict[str, str]:
    for part in value:
        if part not in ("train", "test"):
            raise ValueError(f"splits: {part!r} is not one of train and test")
    return value


Splits = Annotated[dict[str, str], AfterValidator(_check)]
SPLITS = "which split serves as train and as test; one that is not named keeps its name"


def spellings(split: str) -> tuple[str, ...]:
    """Return what a split may be called on disk, its own name first.

    >>> spellings("valid"), spellings("test"), spellings("Fold 1")
    (('valid', 'val', 'validation'), ('test', 'testing'), ('Fold 1',))
    """
    alike = next((names for names in SPELT if split.lower() in names), ())
    return (split, *(name for name in alike if name != split))


def is_spelling(name: str) -> bool:
    """Whether a folder's name is that of a split, in any spelling and case.

    >>> is_spelling("Testing"), is_spelling("cats")
    (True, False)
    """
    return any(name.lower() in names for names in SPELT)


def spelt(name: str, split: str) -> bool:
    """Whether a name on disk stands for a split, whatever its case.

    >>> spelt("Testing", "test"), spelt("test2", "test")
    (True, False)
    """
    return name.lower() in [spelling.lower() for spelling in spellings(split)]
