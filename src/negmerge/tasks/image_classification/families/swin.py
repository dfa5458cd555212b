"""Swin transformers through transformers; images are enlarged on the device, never in memory.

Liu et al., Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, 2021 (arXiv 2103.14030).
"""

from pathlib import Path

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from negmerge.seeding import seeded
from negmerge.tasks.image_classification.pixels import IMAGENET, PixelSettings, normalise_as

SUMMARY = "Swin-T through transformers (28.3 M parameters); images are enlarged to image_size as they are used"
HEAD = "classifier."  # what published weights of another number of classes do not give


class Settings(PixelSettings):
    """Size, where weights start, and normalisation (ImageNet's for three channels); the defaults make Swin-T."""

    image_size: int = Field(224, ge=8, description="pixels of a side: images are resized to it (bilinear)")
    patch_size: int = Field(4, ge=1, description="pixels of a side of a patch")
    window_size: int = Field(7, ge=1, description="patches of a side of an attention window")
    width: int = Field(96, ge=1, description="channels of the first stage; each further one has twice as many")
    depths: tuple[int, ...] = Field((2, 2, 6, 2), min_length=1, description="blocks of each stage")
    heads: tuple[int, ...] = Field((3, 6, 12, 24), min_length=1, description="attention heads of each stage")
    drop_path: float = Field(0.1, ge=0, lt=1, description="largest share of residual branches left out in training")
    pretrained: Path | str | None = Field(
        None, description="checkpoint or hub id a training from scratch starts at; the head is drawn unless it fits"
    )

    @model_validator(mode="after")
    def _fit(self) -> "Settings":
        if len(self.depths) != len(self.heads):
            raise ValueError(f"depths and heads need a value for each stage, got {self.depths} and {self.heads}")
        if any(self.width * 2**stage % heads for stage, heads in enumerate(self.heads)):
            raise ValueError(f"width · 2^stage must be a multiple of heads, got {self.width} and {self.heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size, got {self.image_size}")
        smallest = self.image_size // self.patch_size // 2 ** (len(self.depths) - 1)
        if smallest < self.window_size:
            raise ValueError(
                f"the last stage has {smallest} patches a side, fewer than window_size; enlarge image_size"
            )
        return self


def build(settings: Settings, classes: int, shape: tuple[int, int, int], seed: int = 0) -> nn.Module:
    """Return the network for images of C channels, initialised from the seed as transformers does.

    >>> sum(parameter.numel() for parameter in build(Settings(), 1000, (3, 32, 32)).parameters())
    28288354
    """
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=settings.image_size,
        patch_size=settings.patch_size,
        num_channels=shape[0],
        embed_dim=settings.width,
        depths=list(settings.depths),
        num_heads=list(settings.heads),
        window_size=settings.window_size,
        drop_path_rate=settings.drop_path,
        num_labels=classes,  # type: ignore[call-arg]  # a keyword of the class that it inherits from
    )
    return seeded(lambda: SwinForImageClassification(config), seed)


def prepare(settings: Settings, images: Tensor) -> Tensor:
    """Return images [b, C, H, W] as normalised float32, (x / 255 − mean) / std, resized to image_size.

    Raises InputError for as many means or deviations as the images have no channels.
    """
    prepared = normalise_as(settings, images, IMAGENET)
    size = (settings.image_size, settings.image_size)
    if prepared.shape[2:] == size:
        return prepared
    return functional.interpolate(prepared, size, mode="bilinear", antialias=True)


def logits(model: nn.Module, batch: Tensor) -> Tensor:
    """Return logits [b, classes]."""
    outputs: Tensor = model(pixel_values=batch).logits
    return outputs
