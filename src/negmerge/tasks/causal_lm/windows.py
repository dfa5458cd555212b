"""Windows on texts that are longer than what a model reads at once."""

from typing import NamedTuple


class Window(NamedTuple):
    """Tokens `begin` to `end` of a sequence; those from `counted` on are predicted and count, each in one window."""

    begin: int
    end: int
    counted: int


def windows_of(length: int, start: int, context: int, overlap: int) -> list[Window]:
    """Return the windows of a sequence of `length` tokens, of which those from `start` on count.

    One window, where all fits into `context`. Else each has `context` tokens and counts those that the one before it
    did not see, at least `overlap` tokens before them being its context: an answer that fits keeps the end of its
    prompt, and the first tokens of a prompt that is too long are not read.

    >>> windows_of(6, 2, 8, 2)
    [Window(begin=0, end=6, counted=2)]
    >>> windows_of(12, 9, 8, 2)
    [Window(begin=4, end=12, counted=9)]
    >>> windows_of(12, 1, 6, 2)
    [Window(begin=0, end=6, counted=1), Window(begin=4, end=10, counted=6), Window(begin=6, end=12, counted=10)]
    """
    if length <= context:
        return [Window(0, length, start)]
    if length - start <= context - overlap:
        return [Window(length - context, length, start)]
    found: list[Window] = []
    begin, counted = max(0, start - overlap), start
    while True:
        begin = min(begin, length - context)
        end = begin + context
        found.append(Window(begin, end, counted))
        if end == length:
            return found
        begin, counted = end - overlap, end
