"""CLIP as a zero-shot classifier: an image encoder under a head of class prompts.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021 (arXiv 2103.00020).
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from negmerge.checkpoints import write_bytes_atomic, write_state_dict
from negmerge.errors import InputError
from negmerge.merging.output.model_config import changed_config
from negmerge.seeding import seeded
from negmerge.tasks.image_classification.normalising import normalise
from negmerge.tasks.zero_shot.files import SETTINGS, TOWERS, ClipFiles
from negmerge.tasks.zero_shot.modules import BothTowers, ImageTower, LinearTower, TextTower
from negmerge.tasks.zero_shot.prompts import Prompts, cached_heads, load_heads, load_prompts, tokenize

SUMMARY = "CLIP (a CLIPModel folder, a hub id, ViT-B/32, ViT-B/16 or ViT-L/14) with zero-shot heads of class prompts"
TEMPLATES = ("a photo of a {}.",)
MOST_PROMPTS = 4_000  # whose activations a step of the text tower keeps, all at once


class Settings(BaseModel):
    """Which model, what of it learns to forget, and how data sets without templates of their own are worded."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    path: str = Field(min_length=1, description="a CLIPModel folder, a hub id, or ViT-B/32, ViT-B/16, ViT-L/14")
    train: Literal["vision", "text", "both"] = Field("vision", description="the tower that is trained and merged")
    linearised: bool = Field(False, description="train and evaluate the first-order Taylor model around the base")
    templates: list[str] = Field(
        list(TEMPLATES), min_length=1, description="prompts with {} for the class, for sources that have none"
    )

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        if self.linearised and self.train != "vision":
            raise ValueError("linearised goes with train: vision")
        return self


def build(
    settings: Settings,
    classes: int,
    shape: tuple[int, int, int],
    seed: int = 0,
    head: Sequence[Path] = (),
) -> nn.Module:
    """Return the classifier for images of shape (C, H, W); `head` are the files that `prepare_head` returned.

    The towers that are trained are initialised from the seed: their weights are those of a checkpoint, `pretrained`
    for the model's own. The others, and the point where a linearised model is expanded, are the model's own.

    Raises InputError for images of another shape than the model takes, and without a head.
    """
    files = _files(settings.path)
    vision = files.config.vision_config
    wanted = (vision.num_channels, vision.image_size, vision.image_size)
    if tuple(shape) != wanted:
        raise InputError(
            f"{settings.path} takes images of shape {list(wanted)}, got {list(shape)}; set image_size, mode"
        )
    if not head:
        raise InputError("model: clip classifies by class prompts, and none were given")
    weights = load_heads(head)
    if len(weights) != classes:
        raise InputError(f"the head has {len(weights)} classes, the data {classes}; build it anew")

    def make() -> nn.Module:
        if settings.linearised:
            linear: LinearTower = files.fill(LinearTower(vision, weights), ["vision"])
            linear.fix_origin()
            return linear
        images = ImageTower(vision, weights)
        if settings.train == "vision":
            return images
        return _with_text(settings, files, images, head)

    return seeded(make, seed)


def _with_text(settings: Settings, files: ClipFiles, images: ImageTower, head: Sequence[Path]) -> nn.Module:
    text = files.config.text_config
    tokens, classes = tokenize(files, [load_prompts(file) for file in head])
    scale = files.logit_scale
    if settings.train == "both":
        return BothTowers(text, tokens, classes, scale, images)
    return TextTower(text, tokens, classes, scale, files.fill(images, ["vision"]))


def pretrained(settings: Settings) -> dict[str, Tensor]:
    """Return the model's own weights of the towers that are trained, in float32, by the names of `CLIPModel`."""
    towers = ["vision", "text"] if settings.train == "both" else [settings.train]
    return {name: value.float() for name, value in _files(settings.path).read(towers).items()}


def model_files(settings: Settings) -> dict[str, Path]:
    """Return the files that the model is made of, by the names that a record shows.

    A run begins here: what this process knows of them is forgotten, as a folder may have changed since the last run.
    """
    _files.cache_clear()
    return _files(settings.path).used


def pinned(settings: Settings) -> dict[str, Any]:
    """Return the settings with the folder that a hub id was fetched to, so that all processes read the same commit."""
    return {**settings.model_dump(), "path": str(_files(settings.path).folder)}


def check_prompts(settings: Settings, sources: Sequence[tuple[str, int, Sequence[str] | None]]) -> None:
    """Raise InputError where the text tower would be trained by more prompts than a step can hold.

    `sources` are the name, the number of classes (0 where it is not known yet) and the templates of each data set (None
    for those of the settings).
    """
    counts = [(name, classes * len(own or settings.templates)) for name, classes, own in sources if classes]
    total = sum(count for _, count in counts)
    if settings.train != "vision" and total > MOST_PROMPTS:
        shown = ", ".join(f"{name} {count:,}" for name, count in counts)
        raise InputError(
            f"model.train: {settings.train} encodes every prompt in every step, {total:,} here ({shown}), "
            f"{MOST_PROMPTS:,} at most; take sources with fewer classes or templates, or train: vision"
        )


def prepare_head(settings: Settings, prompts: Sequence[tuple[Sequence[str], Sequence[str] | None]]) -> tuple[Path, ...]:
    """Return the files of the text heads of some data sets, each made where the cache does not have it.

    `prompts` are class names and templates of each data set (None for those of the settings). In the classifier the
    heads follow one another.
    """
    groups = [Prompts(tuple(names), tuple(own or settings.templates)) for names, own in prompts]
    return cached_heads(_files(settings.path), groups)


def export(settings: Settings, model: nn.Module, folder: Path) -> None:
    """Write the whole `CLIPModel`, in float32; the towers that were not trained are the model's own.

    Raises InputError for a linearised model, which no `CLIPModel` computes.
    """
    if settings.linearised:
        raise InputError("a linearised model is no CLIPModel: it has no form in which others could load it")
    files = _files(settings.path)
    trained = model.state_dict()
    state = {name: trained.get(name, value).float() for name, value in files.read(TOWERS).items()}
    write_state_dict(folder / "model.safetensors", state, {"format": "pt"})
    config = files.folder / SETTINGS[0]
    write_bytes_atomic(folder / SETTINGS[0], changed_config(config, "float32", {}) or config.read_bytes())


def image_form(settings: Settings) -> dict[str, Any]:
    """Return the decoding settings of CLIP's own preprocessing: short side to size, centre cut out, in colour."""
    return {"image_size": _files(settings.path).config.vision_config.image_size, "mode": "rgb", "resize": "crop"}


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return uint8 images [b, C, H, W] as float32, normalised by the statistics of the model's preprocessing."""
    return normalise(images, *_files(settings.path).statistics)


@lru_cache(maxsize=8)
def _files(path: str) -> ClipFiles:
    """Return the files of a model, the same object each time: a hub id is looked up once, not with every batch."""
    return ClipFiles(path)
