"""What can go wrong, as the caller sees it: one line that says what, where and what to do."""

from collections.abc import Iterable, Sequence


class NegmergeError(Exception):
    """Something failed while running; the command line exits with 1."""

    exit_code = 1


class InputError(NegmergeError):
    """The request or an input was wrong, and nothing was written; the command line exits with 2."""

    exit_code = 2


class DivergedError(NegmergeError):
    """A model answers with NaN or Inf, or its training went there."""


class InterruptedRunError(NegmergeError):
    """The user stopped a run; the command line exits with 130, as a shell says of Ctrl-C."""

    exit_code = 130


def listing(headline: str, names: Iterable[str], most: int = 10) -> str:
    """Return `headline` with at most `most` of the names below it, one a line.

    >>> print(listing("2 tensors are missing:", ["a", "b"], most=1))
    2 tensors are missing:
      a
      … and 1 more
    """
    rows = list(names)
    lines = [headline, *(f"  {row}" for row in rows[:most])]
    if len(rows) > most:
        lines.append(f"  … and {len(rows) - most} more")
    return "\n".join(lines)


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return at most `most` of the names in one line.

    >>> shortened(["a", "b", "c"], most=2)
    'a, b … and 1 more'
    """
    return ", ".join(names[:most]) + (f" … and {len(names) - most} more" if len(names) > most else "")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the known word closest to `word`, or ''."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
