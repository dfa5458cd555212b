"""VGG-16 with batch normalisation, for small images.

Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015 (arXiv 1409.1556); as
usual on CIFAR one linear layer takes the place of the three of the original, and batch normalisation is added.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from negmerge.tasks.image_classification.initialising import he_initialised
from negmerge.tasks.image_classification.pixels import CIFAR, PixelSettings, normalise_as

SUMMARY = "VGG-16 (or 11) with batch normalisation and one linear layer (14.7 M parameters), for CIFAR"

STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}  # convolutions before each pooling
WIDTHS = (64, 128, 256, 512, 512)


class Settings(PixelSettings):
    """Depth and normalisation, CIFAR's for three channels."""

    depth: Literal[11, 16] = Field(16, description="configuration A (11) or D (16) of the paper")


class Vgg(nn.Module):
    """Five stages of 3 × 3 convolutions, each with pooling at its end, then one linear layer."""

    def __init__(self, stages: tuple[int, ...], channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for width, count in zip(WIDTHS, stages, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                inputs = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # a single pixel stays one: any size of image works
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, classes] of normalised images [b, C, H, W]."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of shape (C, H, W), initialised from the seed (He initialisation).

    >>> sum(parameter.numel() for parameter in build(Settings(), 10, (3, 32, 32)).parameters())
    14728266
    """
    return he_initialised(lambda: Vgg(STAGES[settings.depth], shape[0], classes), seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return images [b, C, H, W] as normalised float32: (x / 255 − mean) / std.

    Raises InputError for as many means or deviations as the images have no channels.
    """
    return normalise_as(settings, images, CIFAR)
