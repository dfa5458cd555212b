"""What a model family's file may have, with a default for everything that it may leave out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from negmerge import registry

Prompts = Sequence[tuple[Sequence[str], Sequence[str] | None]]  # class names and templates of each source


def _nothing(settings: Any) -> dict[str, Any]:
    return {}


def _as_data(settings: Any, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(classes)


def _any_sources(settings: Any, sources: Sequence[tuple[str, int, Sequence[str] | None]]) -> None:
    pass


@dataclass(frozen=True)
class Family:
    """The contents of a family's file.

    `Settings` is pydantic, unknown keys are errors. `build(settings, classes, shape, seed)` returns a module.
    `prepare(settings, images)` makes what the model takes of uint8 [b, C, H, W]; it also takes float32 pixels in
    0 … 255 and lets gradients through to them (it may work in place on what it is given): attacks move pixels, not
    normalised values. `logits(model, batch)` returns [b, classes].

    `HEAD` is the prefix of the tensors that published weights of another number of classes do not give;
    `pretrained(settings)` returns the weights that the family comes with (base: {pretrained: true});
    `image_form(settings)` the decoding settings of the images that it wants; `model_files(settings)` the files that all
    this is read from, by the names that a record shows: they are hashed when a run begins and must be the same where it
    is resumed; `pinned(settings)` settings that name these very files to other processes;
    `outputs(settings, classes)` the names of the outputs for data with these classes, among which they are;
    `start(settings, classes, shape, seed)` what a training of the base begins with, instead of `build` and a setting
    `pretrained`; `export(settings, model, folder)` writes a model in the form in which it was given.

    A family that classifies by prompts has `prepare_head(settings, prompts)`, which makes a file for each source, and
    its `build` takes these as `head`; `check_prompts(settings, sources)` may refuse sources before they are decoded.
    """

    SUMMARY: str
    Settings: Any
    build: Callable[..., nn.Module]
    prepare: Callable[[Any, Tensor], Tensor]
    logits: Callable[[nn.Module, Tensor], Tensor]
    HEAD: str = ""
    pretrained: Callable[[Any], dict[str, Tensor]] | None = None
    image_form: Callable[[Any], Mapping[str, Any]] = _nothing
    model_files: Callable[[Any], Mapping[str, Path]] = _nothing
    pinned: Callable[[Any], Mapping[str, Any]] | None = None
    outputs: Callable[[Any, Sequence[str]], tuple[str, ...]] = _as_data
    start: Callable[..., nn.Module] | None = None
    export: Callable[[Any, nn.Module, Path], None] | None = None
    prepare_head: Callable[[Any, Prompts], tuple[Path, ...]] | None = None
    check_prompts: Callable[[Any, Sequence[tuple[str, int, Sequence[str] | None]]], None] = _any_sources


def family_of(name: str) -> Family:
    """Return a registered family. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("families", name, Family)
