"""A small convolutional network for small images: trained in seconds on a CPU."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from negmerge.seeding import seeded
from negmerge.tasks.image_classification.normalising import normalise

SUMMARY = "three convolutions with batch normalisation, about 58 thousand parameters; for 8 × 8 to 32 × 32 images"


class Settings(BaseModel):
    """Size and normalisation."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    width: int = Field(32, ge=1, le=512, description="channels of the first layer; the others have twice as many")
    mean: tuple[float, ...] = Field((0.5,), min_length=1, description="subtracted from pixels in 0 … 1")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.5,), min_length=1, description="then divided by")


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of shape (C, H, W), initialised from the seed.

    >>> sum(parameter.numel() for parameter in build(Settings(), 10, (1, 8, 8)).parameters())
    58474
    """
    width = settings.width

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    def make() -> nn.Module:
        return nn.Sequential(
            *block(shape[0], width, 1),
            *block(width, 2 * width, 2),
            *block(2 * width, 2 * width, 2),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, classes),
        )

    return seeded(make, seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return uint8 images [b, C, H, W] as normalised float32: (x / 255 − mean) / std.

    Raises InputError for as many means or deviations as the images have no channels.
    """
    return normalise(images, settings.mean, settings.std)
