"""Residual networks with ImageNet's stem: 7 × 7 with stride 2, then max-pooling, for images of 64 pixels and more.

He et al., Deep Residual Learning for Image Recognition, 2016 (arXiv 1512.03385). Tensors have the names that published
weights have (conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, …, fc), so these can be loaded.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.image_classification.initialising import he_initialised
from negmerge.tasks.image_classification.pixels import IMAGENET, PixelSettings, normalise_as

SUMMARY = "ResNet-18 or ResNet-34 with ImageNet's stem (11.2 M or 21.3 M parameters), for 64 × 64 pixels and more"
HEAD = "fc."  # what published weights of another number of classes do not give

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)


class Settings(PixelSettings):
    """Depth, where weights start, and normalisation: ImageNet's for three channels."""

    depth: Literal[18, 34] = Field(18, description="18 or 34 layers of two-convolution blocks")
    pretrained: Path | str | None = Field(
        None, description="checkpoint or hub id a training from scratch starts at; the head is drawn unless it fits"
    )


class Block(nn.Module):
    """Two 3 × 3 convolutions around a shortcut, which is a 1 × 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(residual(x) + shortcut(x))."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Stem, four stages of blocks, average over all pixels, linear head."""

    def __init__(self, blocks: tuple[int, ...], channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = WIDTHS[0]
        for stage, (width, count) in enumerate(zip(WIDTHS, blocks, strict=True), start=1):
            strides = [1 if stage == 1 else 2] + [1] * (count - 1)
            layers = [Block(inputs if i == 0 else width, width, stride) for i, stride in enumerate(strides)]
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
            inputs = width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, classes] of normalised images [b, C, H, W]."""
        x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
        for stage in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{stage}")(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of shape (C, H, W), initialised from the seed (He initialisation).

    >>> sum(parameter.numel() for parameter in build(Settings(), 1000, (3, 224, 224)).parameters())
    11689512
    """
    return he_initialised(lambda: ResNet(BLOCKS[settings.depth], shape[0], classes), seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return images [b, C, H, W] as normalised float32: (x / 255 − mean) / std.

    Raises InputError for as many means or deviations as the images have no channels.
    """
    return normalise_as(settings, images, IMAGENET)
