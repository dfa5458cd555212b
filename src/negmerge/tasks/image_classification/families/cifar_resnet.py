"""Residual networks for 32 × 32 images: ResNet-20 of the original paper, and ResNet-18 with a 3 × 3 stem.

He et al., Deep Residual Learning for Image Recognition, 2016 (arXiv 1512.03385).
"""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from negmerge.tasks.image_classification.initialising import he_initialised
from negmerge.tasks.image_classification.pixels import CIFAR, PixelSettings, normalise_as

SUMMARY = "ResNet-20 for CIFAR (0.27 M parameters), and ResNet-18 with a 3 × 3 stem and no max-pool (11.2 M)"


class Settings(PixelSettings):
    """Depth and normalisation, CIFAR's for three channels."""

    depth: Literal[20, 18] = Field(20, description="20: widths 16, 32, 64; 18: widths 64, 128, 256, 512")


class Padding(nn.Module):
    """The shortcut without weights: every second pixel, and zeros for the new channels, half on either side."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return x [b, c, h, w] as [b, c + 2 · channels, h / stride, w / stride]."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.channels, self.channels))


class Block(nn.Module):
    """Two 3 × 3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = (
                nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
                if projects
                else Padding((outputs - inputs) // 2, stride)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return ReLU(residual(x) + shortcut(x))."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, stages of blocks, average over all pixels, linear head."""

    def __init__(self, widths: tuple[int, ...], blocks: int, projects: bool, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        inputs = widths[0]
        for stage, width in enumerate(widths, start=1):
            layers = []
            for index in range(blocks):
                layers.append(Block(inputs, width, 2 if stage > 1 and index == 0 else 1, projects))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [b, classes] of normalised images [b, C, H, W]."""
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of shape (C, H, W), initialised from the seed (He initialisation).

    Any size from 8 × 8 works; the first convolution has stride 1 and there is no pooling before the last average.

    >>> sum(parameter.numel() for parameter in build(Settings(depth=20), 10, (3, 32, 32)).parameters())
    269722
    """
    widths, blocks, projects = ((16, 32, 64), 3, False) if settings.depth == 20 else ((64, 128, 256, 512), 2, True)
    return he_initialised(lambda: ResNet(widths, blocks, projects, shape[0], classes), seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return uint8 images [b, C, H, W] as normalised float32: (x / 255 − mean) / std.

    Raises InputError for as many means or deviations as the images have no channels.

    >>> import torch
    >>> prepare(Settings(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))[0, :, 0, 0]
    tensor([-1.9895, -1.9803, -1.7068])
    """
    return normalise_as(settings, images, CIFAR)
