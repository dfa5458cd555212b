"""Models of the package timm, where it is installed; with its weights and its way of preparing images."""

from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from negmerge.errors import InputError
from negmerge.seeding import seeded
from negmerge.tasks.image_classification.normalising import normalise

SUMMARY = "any model of the package timm by its name (pip install timm): its data configuration, its weights if asked"


class Settings(BaseModel):
    """Which model, and whether a training of the base begins with timm's weights."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="of the model, such as resnet50.a1_in1k")
    weights: bool = Field(False, description="base: {train} begins with timm's weights, the head drawn anew")


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of C channels, initialised from the seed as timm does."""
    return _create(settings.name, classes, shape[0], False, seed)


def start(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return what a training of the base begins with."""
    return _create(settings.name, classes, shape[0], settings.weights, seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return uint8 images [b, C, H, W] as normalised float32; grey ones by the mean of timm's channels."""
    form = _data_config(settings.name)
    mean, std = (tuple(float(value) for value in form[key]) for key in ("mean", "std"))
    if images.shape[1] != len(mean):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return normalise(images, mean, std)


def image_form(settings: Settings) -> dict[str, Any]:
    """Return how images are decoded: the short side scaled by timm's share, the centre cut."""
    form = _data_config(settings.name)
    size = int(form["input_size"][1])
    scaled = int(size / form.get("crop_pct", 1.0))
    return {"image_size": size, "scale_to": scaled, "resize": "crop", "resample": form.get("interpolation", "bicubic")}


def _create(name: str, classes: int, channels: int, weights: bool, seed: int) -> nn.Module:
    timm = _timm()
    try:
        return seeded(lambda: timm.create_model(name, pretrained=weights, num_classes=classes, in_chans=channels), seed)
    except RuntimeError as error:  # what timm raises for a name that it does not know
        raise InputError(f"model.name: timm has no model {name!r} ({error})") from None


@lru_cache(maxsize=4)
def _data_config(name: str) -> dict[str, Any]:
    found: dict[str, Any] = _timm().data.resolve_model_data_config(_create(name, 10, 3, False, 0))
    return found


def _timm() -> Any:
    try:
        import timm
    except Exception as error:  # its own import fails in many ways where torchvision does not fit torch
        raise InputError(
            f"the family timm needs the package timm, which cannot be imported ({type(error).__name__}); "
            "pip install timm, or use the family hf"
        ) from None
    return timm
