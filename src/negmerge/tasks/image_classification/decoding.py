"""From image files to one uint8 tensor."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from negmerge.errors import InputError
from negmerge.tasks.image_classification.room import make_room

SMALL = 128 * 128  # pixels: below, Python's share of the work holds the interpreter lock, and threads only wait for it
SLICE = 256  # images a task decodes: small enough to share evenly, large enough that handing out costs nothing
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


class DecodingSettings(BaseModel):
    """How images are brought to one form; settings that all sources share."""

    model_config = ConfigDict(extra="forbid")

    image_size: int | None = Field(None, ge=1, description="resize to so many pixels square")
    resize: Literal["stretch", "crop"] = Field(
        "stretch", description="stretch to the square (bilinear), or scale the short side (bicubic) and cut the centre"
    )
    scale_to: int | None = Field(
        None, ge=1, description="what is scaled to so many pixels, before the centre of image_size is cut"
    )
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] | None = Field(
        None, description="how pixels are scaled; unless given as `resize` says"
    )
    mode: Literal["rgb", "gray"] | None = Field(None, description="convert to colour or to grey")

    @model_validator(mode="after")
    def _cut(self) -> "DecodingSettings":
        if self.scale_to is not None and self.scale_to < (self.image_size or self.scale_to + 1):
            raise ValueError("scale_to is scaled before the centre of image_size is cut, so image_size must fit in it")
        return self


def decode(items: Sequence[Any], settings: DecodingSettings, where: str) -> Tensor:
    """Return uint8 images [n, C, H, W] of encoded bytes, paths or PIL images, in their order.

    Images of more than 128 × 128 pixels are decoded by threads.

    Grey images (1, 8 or 16 bits) give one channel, all others three, unless `mode` says otherwise; alpha is dropped.
    Raises InputError for an image that cannot be decoded, for images of different sizes without `image_size`, and for
    grey images among coloured ones without `mode`.
    """
    if not items:
        raise InputError(f"{where} holds no images; check the path")
    first = _pixels(items[0], settings, where, 0)
    room = make_room((len(items), *first.shape))
    images = room.numpy()

    def fill(start: int) -> None:
        for index in range(start, min(start + SLICE, len(items))):
            pixels = _pixels(items[index], settings, where, index)
            if pixels.shape != first.shape:
                raise InputError(_differ(first, pixels, _place(items[index], where, index)))
            images[index] = pixels

    width, height = _open(items[0]).size
    with ThreadPoolExecutor(1 if width * height <= SMALL else os.cpu_count()) as threads:
        for _ in threads.map(fill, range(0, len(items), SLICE)):  # the first failure, in the order of the images
            pass
    return room


def convert(images: Tensor, settings: DecodingSettings) -> Tensor:
    """Bring images that are decoded already, uint8 [n, 1 or 3, H, W], to the size and mode of the settings.

    >>> import torch
    >>> convert(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), DecodingSettings(image_size=28, mode="rgb")).shape
    torch.Size([2, 3, 28, 28])
    """
    _, channels, height, width = images.shape
    size_is_right = settings.image_size is None or height == width == settings.image_size
    if size_is_right and settings.mode in (None, "gray" if channels == 1 else "rgb"):
        return images
    from PIL import Image

    arrays = images.permute(0, 2, 3, 1).numpy()
    return decode([Image.fromarray(a.squeeze(-1) if channels == 1 else a) for a in arrays], settings, "images")


def _pixels(item: Any, settings: DecodingSettings, where: str, index: int) -> np.ndarray:
    """Return one image as uint8 [C, H, W]."""
    from PIL import Image

    try:
        image = _open(item)
        wanted = {"rgb": "RGB", "gray": "L", None: "L" if image.mode in GREY else "RGB"}[settings.mode]
        if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips everything above 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
        image = image if image.mode == wanted else image.convert(wanted)
        if settings.image_size is not None:
            image = _resize(image, settings.image_size, settings)
    except Exception as error:  # the decoders raise whatever a broken file makes them stumble over
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise InputError(
            f"{_place(item, where, index)} is not an image that can be decoded ({reason}); remove or replace it"
        ) from None
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _resize(image: Any, size: int, settings: DecodingSettings) -> Any:
    """Return a PIL image of size × size pixels.

    The cut is that of CLIP's preprocessing, which rounds to the nearest pixel; with `scale_to` that of transformers,
    which rounds down.
    """
    from PIL import Image

    scale, stretched = settings.scale_to or size, settings.resize == "stretch"
    how = getattr(Image.Resampling, (settings.resample or ("bilinear" if stretched else "bicubic")).upper())
    short = min(image.size)
    width, height = (scale, scale) if stretched else (max(scale, int(side * scale / short)) for side in image.size)
    scaled = image.resize((width, height), how)
    if scaled.size == (size, size):
        return scaled
    left, top = (int(gap / 2) if settings.scale_to else round(gap / 2) for gap in (width - size, height - size))
    return scaled.crop((left, top, left + size, top + size))


def _open(item: Any) -> Any:
    from PIL import Image

    if isinstance(item, Image.Image):
        return item
    if isinstance(item, dict):  # how the datasets library stores an image
        item = item["bytes"] if item.get("bytes") is not None else Path(item["path"])
    image = Image.open(io.BytesIO(item if isinstance(item, bytes) else Path(item).read_bytes()))
    image.load()
    return image


def _place(item: Any, where: str, index: int) -> str:
    return str(item) if isinstance(item, Path) else f"{where}: image {index}"


def _differ(first: np.ndarray, other: np.ndarray, place: str) -> str:
    if first.shape[1:] != other.shape[1:]:
        sizes = [f"{shape[2]} × {shape[1]}" for shape in (other.shape, first.shape)]
        return f"{place} has {sizes[0]} pixels, the first image {sizes[1]}; set image_size"
    kinds = ["grey" if shape[0] == 1 else "coloured" for shape in (other.shape, first.shape)]
    return f"{place} is {kinds[0]}, the first image is {kinds[1]}; set mode: rgb or mode: gray"
