"""The settings of families that take colour images, and the normalisation they stand for."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from negmerge.tasks.image_classification.normalising import normalise

Channels = tuple[float, ...]
CIFAR: tuple[Channels, Channels] = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))  # CIFAR-10's training images
IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PixelSettings(BaseModel):
    """Mean and deviation of the pixels; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    mean: Channels | None = Field(
        None, min_length=1, description="per channel, of pixels in 0 … 1; the family's for three channels, else 0.5"
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None, min_length=1, description="per channel, of pixels in 0 … 1; the family's for three channels, else 0.5"
    )


def normalise_as(settings: PixelSettings, images: Tensor, usual: tuple[Channels, Channels]) -> Tensor:
    """Return images [b, C, H, W] as float32: (x / 255 − mean) / std, with the settings' numbers or the usual ones.

    Raises InputError for as many means or deviations as the images have no channels.

    >>> import torch
    >>> normalise_as(PixelSettings(), torch.zeros(1, 1, 1, 1, dtype=torch.uint8), CIFAR).item()
    -1.0
    """
    mean, std = usual if images.shape[1] == 3 else ((0.5,), (0.5,))
    return normalise(images, settings.mean or mean, settings.std or std)
