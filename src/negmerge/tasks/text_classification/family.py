"""What the file of a family of text classifiers may have, with a default for everything that it may leave out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from negmerge import registry
from negmerge.tasks.family_model import FamilyFile


def _zero(settings: Any) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class TextFamily(FamilyFile):
    """The contents of a family's file; see `FamilyFile` for what every family has.

    `build(settings, classes, seed)` returns a module, and `start`, if it is there, takes the same.
    `encode(settings, texts)` returns the token numbers of each text, at least one. `logits(model, ids, mask)` returns
    [b, classes] of ids, int64 [b, L], padded on the right with `padding(settings)`; mask, int64 [b, L], is 1 at tokens
    and 0 at padding, on which nothing may depend.
    """

    encode: Callable[[Any, Sequence[str]], list[list[int]]]
    logits: Callable[[nn.Module, Tensor, Tensor], Tensor]
    padding: Callable[[Any], int] = _zero


def family_of(name: str) -> TextFamily:
    """Return a registered family. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("text-families", name, TextFamily)
