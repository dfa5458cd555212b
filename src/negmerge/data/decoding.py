"""From image files to one uint8 tensor."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from negmerge.errors import InputError


class DecodingSettings(BaseModel):
    """How images are brought to one form; settings that all sources share."""

    model_config = ConfigDict(extra="forbid")

    image_size: int | None = Field(None, ge=1, description="resize to so many pixels square (bilinear)")
    mode: Literal["rgb", "gray"] | None = Field(None, description="convert to colour or to grey")


def decode(items: Sequence[Any], settings: DecodingSettings, where: str) -> Tensor:
    """Return uint8 images [n, C, H, W] of encoded bytes, paths or PIL images, in their order, decoded by threads.

    Colour where the first image has colour, grey where it is grey, unless `mode` says otherwise. Raises InputError for
    an image that cannot be decoded, and for images of different sizes without `image_size`.
    """
    if not items:
        raise InputError(f"{where} holds no images")
    mode = {"rgb": "RGB", "gray": "L", None: None}[settings.mode] or _mode(_open(items[0], where, 0))
    size = settings.image_size

    def one(pair: tuple[int, Any]) -> np.ndarray:
        image = _open(pair[1], where, pair[0])
        if size is not None and image.size != (size, size):
            from PIL import Image

            image = image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image.convert(mode))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        arrays = list(threads.map(one, enumerate(items), chunksize=256))
    shape = arrays[0].shape
    for i, array in enumerate(arrays):
        if array.shape != shape:
            raise InputError(
                f"{where}: image {i} has {array.shape[2]} × {array.shape[1]} pixels, "
                f"the first {shape[2]} × {shape[1]}; set image_size"
            )
    return torch.from_numpy(np.stack(arrays))


def convert(images: Tensor, settings: DecodingSettings) -> Tensor:
    """Bring images that are decoded already, uint8 [n, C, H, W], to the size and mode of the settings."""
    if settings.image_size in (None, images.shape[-1]) and settings.mode in (
        None,
        {1: "gray", 3: "rgb"}[images.shape[1]],
    ):
        return images
    from PIL import Image

    arrays = images.permute(0, 2, 3, 1).numpy()
    return decode([Image.fromarray(a.squeeze(-1) if a.shape[-1] == 1 else a) for a in arrays], settings, "images")


def _open(item: Any, where: str, index: int) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        if isinstance(item, dict):  # how the datasets library stores an image
            item = item["bytes"] if item.get("bytes") is not None else item["path"]
        if isinstance(item, bytes):
            item = io.BytesIO(item)
        if isinstance(item, Image.Image):
            return item
        image = Image.open(item)
        image.load()
        return image
    except (UnidentifiedImageError, OSError, TypeError, ValueError, KeyError, AttributeError):
        raise InputError(f"{where}: row {index} is not an image that can be decoded") from None


def _mode(image: Any) -> str:
    return "L" if image.mode in ("1", "L", "I", "I;16") else "RGB"
