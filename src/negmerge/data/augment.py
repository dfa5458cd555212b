"""Augmentation of a batch, each image with draws of its own, from one generator."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from negmerge.errors import InputError

CROP = re.compile(r"crop([1-9]\d?)?")


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image: a random crop after padding by `crop` zeros, a mirror image half of the time."""

    crop: int = 0
    flip: bool = False


def parse_augmentation(spec: str) -> Augmentation:
    """Return what `spec` says: "none", or "crop" (padding 4), "crop2" (padding 2), "flip", joined by +.

    Raises InputError for any other word, and for one that stands twice.

    >>> parse_augmentation("crop2+flip")
    Augmentation(crop=2, flip=True)
    """
    words = [] if spec == "none" else spec.split("+")
    crop, flip = 0, False
    for word in words:
        match = CROP.fullmatch(word)
        if match and not crop:
            crop = int(match[1] or 4)
        elif word == "flip" and not flip:
            flip = True
        else:
            raise InputError(
                f"augment: {spec!r} is not known; write none, crop (padding 4), crop2 (padding 2, or any to 99), flip, "
                "or crop+flip"
            )
    return Augmentation(crop, flip)


def augment(images: Tensor, spec: str, generator: torch.Generator) -> Tensor:
    """Return images [b, C, H, W] of any dtype, augmented as `spec` says; "none" returns them as they are.

    A crop pads with zeros (black, where images are pixels) and cuts a window of the old size at random; a flip mirrors
    left and right. Draws come from `generator`, on its own device (one on the CPU gives the same images everywhere):
    first the crops, then the flips. Raises InputError for an unknown `spec`.

    >>> augment(torch.arange(4).view(1, 1, 1, 4), "crop1+flip", torch.Generator().manual_seed(1)).shape
    torch.Size([1, 1, 1, 4])
    """
    plan = parse_augmentation(spec)
    if plan.crop:
        images = _crop(images, plan.crop, generator)
    if plan.flip:
        mirrored = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


def _crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    shifts = torch.randint(2 * padding + 1, (2, count), generator=generator, device=generator.device)
    shifts = shifts.to(images.device)
    padded = functional.pad(images, (padding,) * 4)
    rows = shifts[0][:, None] + torch.arange(height, device=images.device)
    columns = shifts[1][:, None] + torch.arange(width, device=images.device)
    each = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
