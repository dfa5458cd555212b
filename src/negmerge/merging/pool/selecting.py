"""Which tensors merge: by what they are, and by the patterns of the request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from negmerge.errors import InputError
from negmerge.merging.buffers import STATISTICS, Policy

if TYPE_CHECKING:
    from negmerge.checkpoints import Checkpoint
    from negmerge.checkpoints.dtypes import DType

# Buffers of transformers and timm that are floats, but computed from the config: saved by some versions only.
COMPUTED = re.compile(
    r"(^|\.)(masked_bias|causal_mask|attn_mask|(original_|long_|short_)?inv_freq|(cos|sin)_cached"
    r"|relative_coords_table)$"
)
CAUSAL_MASK = re.compile(r"(^|\.)(attn|attention)\.bias$")


def can_merge(name: str, dtype: DType, shape: Sequence[int], buffers: Policy = "keep") -> bool:
    """Return whether a tensor merges where no pattern says otherwise.

    A tensor merges when it is floating point, and neither a batch-norm statistic (unless `buffers` is "negate") nor a
    buffer that is computed from the config: a mask, the frequencies of rotary embeddings, a table of coordinates. All
    others pass through from the base.
    """
    if not dtype.is_floating_point or COMPUTED.search(name):
        return False
    if buffers == "keep" and STATISTICS.search(name):
        return False
    # GPT-2, GPT-Neo, GPT-J and GPT-NeoX keep their causal mask, [1, 1, n, n], under the name of a bias.
    square = len(shape) == 4 and tuple(shape[:2]) == (1, 1) and shape[2] == shape[3]
    return not (square and CAUSAL_MASK.search(name))


class Patterns:
    """What a request says of names: its `include` and `exclude` patterns, and its policy for buffers.

    A name is wanted when some `include` pattern (if there are any) and no `exclude` pattern is found in it.
    Raises InputError for a pattern that is no regular expression.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = (), buffers: Policy = "keep") -> None:
        self._include = _compiled(include, "include")
        self._exclude = _compiled(exclude, "exclude")
        self._buffers = buffers

    def can_merge(self, checkpoint: Checkpoint, name: str) -> bool:
        """Return whether a tensor of a checkpoint merges where no pattern says otherwise."""
        return can_merge(name, checkpoint.dtype(name), checkpoint.shape(name), self._buffers)

    def check(self, names: Callable[[], Iterable[str]]) -> None:
        """Raise InputError for a pattern that is found in none of the names of base and members."""
        if not self._include and not self._exclude:
            return
        known = list(dict.fromkeys(names()))
        for option, patterns in (("include", self._include), ("exclude", self._exclude)):
            for pattern in patterns:
                if not any(pattern.search(name) for name in known):
                    example = f", such as {known[0]!r}" if known else ""
                    raise InputError(
                        f"--{option} {pattern.pattern!r} is found in none of the {len(known)} names of base and members"
                        f"{example}; leave it out or correct it"
                    )

    def included(self, name: str) -> bool:
        """Return whether some `include` pattern is found in a name, or there are none."""
        return not self._include or any(pattern.search(name) for pattern in self._include)

    def excluded(self, name: str) -> bool:
        """Return whether some `exclude` pattern is found in a name."""
        return any(pattern.search(name) for pattern in self._exclude)

    def wanted(self, *names: str) -> bool:
        """Return whether a tensor is wanted; all its `names` count, as tied names are one tensor."""
        if not self._include and not self._exclude:
            return True
        return any(self.included(name) for name in names) and not any(self.excluded(name) for name in names)


def _compiled(patterns: Sequence[str], option: str) -> list[re.Pattern[str]]:
    return [compile_pattern(text, option) for text in patterns]


def compile_pattern(text: str, option: str) -> re.Pattern[str]:
    """Return a pattern of `--include` or `--exclude`. Raises InputError for what is no regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InputError(f"--{option} {text!r} is not a regular expression: {error}") from None


def check_patterns(include: Sequence[str], exclude: Sequence[str], where: str) -> None:
    """Raise InputError, naming the place, for a pattern that is no regular expression."""
    try:
        Patterns(include, exclude)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
