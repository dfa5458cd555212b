"""Any image classifier of transformers, from a folder or the hub, with its own image processor."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from negmerge.errors import InputError
from negmerge.tasks.image_classification.processor import CONFIG, Processor, plain, read_processor
from negmerge.tasks.transformers_model import LABELS, LabelRule, TransformersModel, quiet

SUMMARY = "any AutoModelForImageClassification of transformers (ViT, ResNet, ConvNeXt, Swin, …): a folder or a hub id"


class Settings(BaseModel):
    """Where the model is, how its outputs are named, and how images are prepared where it has no processor."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    path: str = Field(min_length=1, description="a folder that save_pretrained wrote, or a hub id (owner/name@commit)")
    labels: LabelRule = Field("names", description=LABELS)
    scratch: bool = Field(False, description="base: {train} begins with drawn weights, not with the model's")
    image_size: int | None = Field(None, ge=1, description="pixels of a side, instead of what the processor says")
    mean: tuple[float, ...] | None = Field(None, min_length=1, description="subtracted from pixels in 0 … 1")
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(None, min_length=1, description="then divided by")

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        given = [value is not None for value in (self.image_size, self.mean, self.std)]
        if any(given) and not all(given):
            raise ValueError("image_size, mean and std replace the model's image processor: give all three, or none")
        return self


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network that the config describes, float32, initialised from the seed as transformers does.

    Raises InputError for a model that is no classifier of images, and for another number of classes or channels.
    """
    from transformers import AutoModelForImageClassification

    found = TransformersModel(settings.path)
    config = found.sized("image", classes, settings.labels == "new")
    if _channels(config) != shape[0]:
        raise InputError(
            f"{settings.path} takes images of {_channels(config)} channels, the data has {shape[0]}; set data.mode"
        )
    model: nn.Module = found.drawn(AutoModelForImageClassification, config, seed, "image classifier")
    return model


def start(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return what a training of the base begins with: the model's weights, a new head as drawn from the seed."""
    model = build(settings, classes, shape, seed)
    if not settings.scratch:
        from transformers import AutoModelForImageClassification

        weights = TransformersModel(settings.path).begin(AutoModelForImageClassification, classes, seed)
        model.load_state_dict(weights)
    return model


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return uint8 images [b, C, H, W] as normalised float32, as the processor or the settings say."""
    return _processor(settings).prepare(images)


def logits(model: nn.Module, batch: Tensor) -> Tensor:
    """Return logits [b, classes]."""
    found: Tensor = model(pixel_values=batch).logits
    return found


def image_form(settings: Settings) -> dict[str, Any]:
    """Return how images are decoded: resized and cut as the processor does, with Pillow."""
    TransformersModel(settings.path).check("image", settings.labels == "new")
    return _processor(settings).form


def outputs(settings: Settings, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the outputs for data with these classes."""
    return TransformersModel(settings.path).order_labels(classes, settings.labels)


def pretrained(settings: Settings) -> dict[str, Tensor]:
    """Return the model's own weights, float32."""
    from transformers import AutoModelForImageClassification

    model = TransformersModel(settings.path)
    model.check("image")
    return model.weights(AutoModelForImageClassification)


def model_files(settings: Settings) -> dict[str, Path]:
    """Return the files of config, weights and processor."""
    return TransformersModel(settings.path).files(CONFIG)


def export(settings: Settings, model: nn.Module, folder: Path) -> None:
    """Write a model and its processor as a folder that from_pretrained reads."""
    saved: Any = model
    with quiet():
        saved.save_pretrained(folder)
    own = TransformersModel(settings.path).folder / CONFIG
    if own.is_file():
        (folder / CONFIG).write_bytes(own.read_bytes())


def _channels(config: Any) -> int:
    return int(getattr(config, "num_channels", 3))


def _processor(settings: Settings) -> Processor:
    return _read(settings.path, settings.image_size, settings.mean, settings.std)


@lru_cache(maxsize=4)
def _read(
    path: str, image_size: int | None, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Processor:
    model = TransformersModel(path)
    if image_size is not None and mean is not None and std is not None:
        return plain(image_size, _channels(model.config), mean, std)
    return read_processor(model.folder, path, _channels(model.config))
