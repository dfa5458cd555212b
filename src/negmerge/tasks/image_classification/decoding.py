"""From image files to one uint8 tensor."""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from negmerge.errors import InputError, listing
from negmerge.tasks.image_classification.room import make_room

SMALL = 128 * 128  # pixels: below, Python's share of the work holds the interpreter lock, and threads only wait for it
SLICE = 256  # images a task decodes: small enough to share evenly, large enough that handing out costs nothing
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
ORIENTATION = 0x0112  # of EXIF: how the camera was held
WHITE = (1.0, 255.0, 65535.0)  # what floats are scaled to: the smallest of these that no value exceeds


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


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images, uint8 [n, C, H, W], and `sha256:…` of the encoded bytes of each; "" of an image that came decoded."""

    images: Tensor
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class Damage:
    """An image that cannot be decoded: its number, where it is, and why."""

    index: int
    place: str
    reason: str


def decode(items: Sequence[Any], settings: DecodingSettings, where: str) -> Tensor:
    """Return the images of `decode_hashed`, uint8 [n, C, H, W]."""
    return decode_hashed(items, settings, where).images


def decode_hashed(items: Sequence[Any], settings: DecodingSettings, where: str) -> Decoded:
    """Return uint8 images of encoded bytes, paths, arrays or PIL images, in their order, with the hash of each.

    Images of more than 128 × 128 pixels are decoded by threads.

    Grey images (1, 8, 16 or 32 bits, or floats) give one channel, all others three, unless `mode` says otherwise; alpha
    is dropped, and an image is turned as its EXIF orientation says. Values of 16 and 32 bits are divided by 257. Floats
    go from 0 to 1, 255 or 65535, whichever is the smallest that no value of the image exceeds. An array is [H, W],
    [H, W, C] or [C, H, W].

    Raises InputError that lists all images that cannot be decoded, or for images of different sizes without
    `image_size`, and for grey images among coloured ones without `mode`.
    """
    if not items:
        raise InputError(f"{where} holds no images; check the path")
    damaged: list[Damage] = []
    hashes = [""] * len(items)

    def take(index: int) -> np.ndarray | None:
        pixels, hashes[index] = _pixels(items[index], settings, where, index)
        if isinstance(pixels, Damage):
            damaged.append(pixels)
            return None
        return pixels

    firsts = (pixels for pixels in map(take, range(len(items))) if pixels is not None)
    first = next(firsts, None)
    if first is None:
        raise InputError(_told(damaged))
    begun = len(damaged)
    room = make_room((len(items), *first.shape))
    images = room.numpy()

    def fill(start: int) -> None:
        for index in range(max(start, begun), min(start + SLICE, len(items))):
            pixels = take(index)
            if pixels is None:
                continue
            if pixels.shape != first.shape:
                raise InputError(_differ(first, pixels, _place(items[index], where, index)))
            images[index] = pixels

    width, height = _open(items[begun])[0].size
    with ThreadPoolExecutor(1 if width * height <= SMALL else os.cpu_count()) as threads:
        for _ in threads.map(fill, range(0, len(items), SLICE)):  # the first failure, in the order of the images
            pass
    if damaged:
        raise InputError(_told(damaged))
    return Decoded(room, tuple(hashes))


def _told(damaged: Sequence[Damage]) -> str:
    """Return the line, or the list, of all images that cannot be decoded."""
    lines = [f"{one.place} is not an image that can be decoded ({one.reason})" for one in damaged]
    if len(lines) == 1:
        return f"{lines[0]}; remove or replace it"
    lines = [f"{one.place} ({one.reason})" for one in sorted(damaged, key=lambda one: one.index)]
    return listing(f"{len(lines)} images cannot be decoded; remove or replace them:", lines, most=len(lines))


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


def _pixels(item: Any, settings: DecodingSettings, where: str, index: int) -> tuple[np.ndarray | Damage, str]:
    """Return one image as uint8 [C, H, W], or what is wrong with it, and the hash of its bytes."""
    hash_of_bytes = ""
    try:
        image, hash_of_bytes = _open(item)
        wanted = {"rgb": "RGB", "gray": "L", None: "L" if image.mode in GREY else "RGB"}[settings.mode]
        image = _upright(_in_bytes(image))
        image = image if image.mode == wanted else image.convert(wanted)
        if settings.image_size is not None:
            image = _resize(image, settings.image_size, settings)
    except Exception as error:  # the decoders raise whatever a broken file makes them stumble over
        unknown = type(error).__name__ == "UnidentifiedImageError"
        reason = "no known format" if unknown else f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return Damage(index, _place(item, where, index), reason), hash_of_bytes
    pixels = np.asarray(image)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), hash_of_bytes


def _in_bytes(image: Any) -> Any:
    """Return a PIL image of whole numbers beyond 8 bits, or of floats, as one of bytes; any other as it is."""
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow's own conversion clips everything above 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    return Image.fromarray(scaled(np.asarray(image))) if image.mode == "F" else image


def scaled(values: np.ndarray) -> np.ndarray:
    """Return floats as bytes, white being the smallest of 1, 255 and 65535 that no value exceeds.

    Raises ValueError for NaN, Inf, negative values and larger ones.

    >>> scaled(np.array([0.0, 0.5, 1.0])), scaled(np.array([0.0, 128.0]))
    (array([  0, 128, 255], dtype=uint8), array([  0, 128], dtype=uint8))
    """
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or Inf")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > WHITE[-1]:
        raise ValueError(f"its values go from {low:g} to {high:g}: bring them to 0 … 1 or 0 … 255")
    white = next(white for white in WHITE if high <= white)
    return np.asarray((values * (255 / white)).round().astype(np.uint8))


def _upright(image: Any) -> Any:
    """Return a PIL image turned as its EXIF orientation says; an EXIF part that cannot be read says nothing."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # the parser of EXIF stumbles over whatever cameras write
        return image
    return ImageOps.exif_transpose(image) if turned else image


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


def _open(item: Any) -> tuple[Any, str]:
    """Return a PIL image, and the hash of the bytes that it was decoded from."""
    from PIL import Image

    if isinstance(item, Image.Image):
        return item, ""
    if isinstance(item, list | np.ndarray):
        return _from_array(np.asarray(item)), ""
    if isinstance(item, dict):  # how the datasets library stores an image
        item = item["bytes"] if item.get("bytes") is not None else Path(item["path"])
    encoded = item if isinstance(item, bytes) else Path(item).read_bytes()
    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image, f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _from_array(values: np.ndarray) -> Any:
    """Return an array as a PIL image. Raises ValueError for another shape or other values than images have."""
    from PIL import Image

    if values.ndim == 3 and values.shape[-1] not in (1, 3, 4) and values.shape[0] in (1, 3, 4):
        values = values.transpose(1, 2, 0)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] not in (1, 3, 4)):
        raise ValueError(f"an array of shape {list(values.shape)}: an image is [H, W], [H, W, C] or [C, H, W]")
    if values.dtype.kind == "f":
        values = scaled(values)
    elif values.dtype.kind not in "ui" or values.min() < 0 or values.max() > 255:
        raise ValueError("its values are not from 0 to 255")
    values = np.ascontiguousarray(values.astype(np.uint8))
    return Image.fromarray(values[..., 0] if values.shape[-1] == 1 and values.ndim == 3 else values)


def _place(item: Any, where: str, index: int) -> str:
    return str(item) if isinstance(item, Path) else f"{where}: image {index}"


def _differ(first: np.ndarray, other: np.ndarray, place: str) -> str:
    if first.shape[1:] != other.shape[1:]:
        sizes = [f"{shape[2]} × {shape[1]}" for shape in (other.shape, first.shape)]
        return f"{place} has {sizes[0]} pixels, the first image {sizes[1]}; set image_size"
    kinds = ["grey" if shape[0] == 1 else "coloured" for shape in (other.shape, first.shape)]
    return f"{place} is {kinds[0]}, the first image is {kinds[1]}; set mode: rgb or mode: gray"
