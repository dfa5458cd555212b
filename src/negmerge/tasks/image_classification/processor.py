"""How a model of transformers wants its images: what its processor says, held against what it does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from negmerge.errors import InputError
from negmerge.tasks.image_classification.decoding import DecodingSettings, decode
from negmerge.tasks.image_classification.normalising import normalise
from negmerge.tasks.transformers_model import quiet, reason

CONFIG = "preprocessor_config.json"
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
SQUARE_FROM = 384  # pixels, from which ConvNext's processor stretches images instead of cutting them
NEAR = 0.02  # of a normalised value, on average: the rounding of another resizer


@dataclass(frozen=True)
class Processor:
    """Decoding settings (`form`), what is subtracted and divided by, and whether the colours are turned round."""

    form: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    turned: bool = False

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images [b, C, H, W] as the model takes them, float32."""
        return normalise(images.flip(1) if self.turned else images, self.mean, self.std)


def read_processor(folder: Path, shown: str, channels: int) -> Processor:
    """Return the processor in a folder. Raises InputError where there is none, or for one that does anything else."""
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{shown} has no {CONFIG}; save the image processor beside the model, or give image_size, mean and std"
        )
    from transformers import AutoImageProcessor

    try:
        with quiet():
            own = AutoImageProcessor.from_pretrained(folder)
    except Exception as error:  # whatever the many processors raise
        raise InputError(f"{shown}: transformers cannot use its {CONFIG} ({reason(error)})") from None
    found = _understood(own.to_dict(), shown, channels)
    _check(found, own, shown, channels)
    return found


def plain(image_size: int, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Processor:
    """Return the processor of settings that are given: stretched to a square, bilinear."""
    return Processor({"image_size": image_size, "mode": _mode(channels)}, mean, std)


def _understood(raw: dict[str, Any], shown: str, channels: int) -> Processor:
    size, crop = raw.get("size") or {}, raw.get("crop_size") or {}
    size, crop = (side if isinstance(side, dict) else {"height": side, "width": side} for side in (size, crop))
    form: dict[str, Any] = {"mode": _mode(channels)}
    if raw.get("do_resize"):
        short = size.get("shortest_edge")
        scaled = _side(size, shown) if short is None else int(short)
        final = _side(crop, shown) if raw.get("do_center_crop") else scaled
        if short is not None and raw.get("crop_pct"):
            final, scaled = scaled, scaled if scaled >= SQUARE_FROM else int(scaled / raw["crop_pct"])
            short = None if final >= SQUARE_FROM else short
        form |= {"image_size": final, "scale_to": scaled, "resize": "stretch" if short is None else "crop"}
        form["resample"] = FILTERS.get(raw.get("resample", 2), "bilinear")
    scale = 255.0 * raw.get("rescale_factor", 1 / 255) if raw.get("do_rescale") else 255.0
    mean, std = raw.get("image_mean"), raw.get("image_std")
    if not raw.get("do_normalize") or mean is None or std is None:
        mean, std = [0.0], [1.0]
    mean, std = ([value] if isinstance(value, float | int) else value for value in (mean, std))
    return Processor(
        form,
        tuple(value / scale for value in mean),
        tuple(value / scale for value in std),
        bool(raw.get("do_flip_channel_order")),
    )


def _check(found: Processor, own: Any, shown: str, channels: int) -> None:
    """Raise InputError unless transformers makes the same of an image of noise."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((332, 244), Image.Resampling.BICUBIC)
    image = image if channels == 3 else image.convert("L")
    with quiet():
        theirs = own(images=image, return_tensors="pt")["pixel_values"]
    ours = found.prepare(decode([image], DecodingSettings(**found.form), shown))
    if ours.shape != theirs.shape or float((ours - theirs).abs().mean()) > NEAR * float(theirs.std()):
        raise InputError(
            f"{shown}: its image processor does more than resizing, cutting and normalising; give image_size, mean "
            "and std to prepare images without it"
        )


def _side(size: dict[str, Any], shown: str) -> int:
    height, width = size.get("height"), size.get("width")
    if height is None or height != width:
        raise InputError(f"{shown}: its image processor makes no squares ({size}); give image_size, mean and std")
    return int(height)


def _mode(channels: int) -> str:
    return "gray" if channels == 1 else "rgb"
