"""What a model family's file may have, with a default for everything that it may leave out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from negmerge import registry
from negmerge.tasks.family_model import FamilyFile, nothing

Prompts = Sequence[tuple[Sequence[str], Sequence[str] | None]]  # class names and templates of each source


def _any_sources(settings: Any, sources: Sequence[tuple[str, int, Sequence[str] | None]]) -> None:
    pass


def _called(model: nn.Module, batch: Tensor) -> Tensor:
    outputs: Tensor = model(batch)
    return outputs


@dataclass(frozen=True, kw_only=True)
class Family(FamilyFile):
    """The contents of a family's file; see `FamilyFile` for what every family has.

    `build(settings, classes, shape, seed)` returns a module, and `start` takes the same.
    `prepare(settings, images)` makes what the model takes of uint8 [b, C, H, W]; it also takes float32 pixels in
    0 … 255 and lets gradients through to them (it may work in place on what it is given): attacks move pixels, not
    normalised values. `logits(model, batch)` returns [b, classes], of a model that does not return them itself.

    `HEAD` is the prefix of the tensors that published weights of another number of classes do not give;
    `image_form(settings)` the decoding settings of the images that it wants; `pinned(settings)` settings that name the
    very files of `model_files` to other processes. Without `start` a setting `pretrained` names weights to begin with.

    A family that classifies by prompts has `prepare_head(settings, prompts)`, which makes a file for each source, and
    its `build` takes these as `head`; `check_prompts(settings, sources)` may refuse sources before they are decoded.
    """

    prepare: Callable[[Any, Tensor], Tensor]
    logits: Callable[[nn.Module, Tensor], Tensor] = _called
    HEAD: str = ""
    image_form: Callable[[Any], Mapping[str, Any]] = nothing
    pinned: Callable[[Any], Mapping[str, Any]] | None = None
    prepare_head: Callable[[Any, Prompts], tuple[Path, ...]] | None = None
    check_prompts: Callable[[Any, Sequence[tuple[str, int, Sequence[str] | None]]], None] = _any_sources


def family_of(name: str) -> Family:
    """Return a registered family. Raises InputError for an unknown name, and for a file that lacks something."""
    return registry.read("families", name, Family)
