"""What the file of a family of text classifiers may have, with a default for everything that it may leave out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from negmerge import registry


def _nothing(settings: Any) -> dict[str, Any]:
    return {}


def _as_data(settings: Any, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(classes)


def _zero(settings: Any) -> int:
    return 0


@dataclass(frozen=True)
class TextFamily:
    """The contents of a family's file.

    `Settings` is pydantic, unknown keys are errors. `build(settings, classes, seed)` returns a module.
    `encode(settings, texts)` returns the token numbers of each text, at least one. `logits(model, ids, mask)` returns
    [b, classes] of ids, int64 [b, L], padded on the right with `padding(settings)`; mask, int64 [b, L], is 1 at tokens
    and 0 at padding, on which nothing may depend.

    `outputs(settings, classes)` returns the names of the outputs for data with these classes, among which they are;
    `start(settings, classes, seed)` returns what a training of the base begins with, unless it is what `build` returns;
    `pretrained(settings)` returns the weights that the family comes with (base: {pretrained: true});
    `model_files(settings)` the files that all this is read from; `export(settings, model, folder)` writes a model in
    the form in which it was given.
    """

    SUMMARY: str
    Settings: Any
    build: Callable[[Any, int, int], nn.Module]
    encode: Callable[[Any, Sequence[str]], list[list[int]]]
    logits: Callable[[nn.Module, Tensor, Tensor], Tensor]
    padding: Callable[[Any], int] = _zero
    outputs: Callable[[Any, Sequence[str]], tuple[str, ...]] = _as_data
    start: Callable[[Any, int, int], nn.Module] | None = None
    pretrained: Callable[[Any], dict[str, Tensor]] | None = None
    model_files: Callable[[Any], Mapping[str, Path]] = _nothing
    export: Callable[[Any, nn.Module, Path], None] | None = None


def family_of(name: str) -> TextFamily:
    """Return a registered family. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("text-families", name, TextFamily)
