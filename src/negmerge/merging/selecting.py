"""Which tensors merge."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from negmerge.errors import InputError

if TYPE_CHECKING:
    from negmerge.checkpoints.dtypes import DType

STATISTICS = re.compile(r"(^|\.)running_(mean|var)$")


def select_tensors(dtypes: Mapping[str, DType], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """Return the names that merge, in their order: floating point, no batch-norm statistics, narrowed by regexes.

    A name merges when some `include` pattern (if there are any) and no `exclude` pattern is found in it.
    Raises InputError for a pattern that is no regex or is found in no candidate, and where nothing is left.
    """
    chosen = [name for name, dtype in dtypes.items() if dtype.is_floating_point and not STATISTICS.search(name)]
    if include:
        chosen = _matching(chosen, include, "include")
    if exclude:
        drop = frozenset(_matching(chosen, exclude, "exclude"))
        chosen = [name for name in chosen if name not in drop]
    if not chosen:
        raise InputError("no tensor is left to merge; widen include or narrow exclude")
    return chosen


def _matching(names: Sequence[str], patterns: Sequence[str], option: str) -> list[str]:
    compiled = []
    for text in patterns:
        pattern = compile_pattern(text, option)
        if not any(pattern.search(name) for name in names):
            example = f", such as {names[0]!r}" if names else ""
            raise InputError(f"--{option} {text!r} is found in none of the {len(names)} names{example}")
        compiled.append(pattern)
    return [name for name in names if any(pattern.search(name) for pattern in compiled)]


def compile_pattern(text: str, option: str) -> re.Pattern[str]:
    """Return a pattern of `--include` or `--exclude`. Raises InputError for what is no regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(f"--{option} {text!r} is not a regular expression: {error}") from None
