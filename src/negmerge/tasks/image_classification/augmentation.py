"""Augmentation of a batch, each image with draws of its own, from one generator."""

import re
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.tasks.image_classification import cropping

CROP = re.compile(r"crop([1-9]\d?)?")
RANDOM = re.compile(r"rand-m([1-9]|10)-n([1-9])")


@dataclass(frozen=True)
class Augmentation:
    """What is done to each image: a random crop after padding by `crop` zeros, a mirror image half of the time.

    Then, where `operations` is above 0, RandAugment with so many operations of this magnitude (of timm: 1 … 10).
    """

    crop: int = 0
    flip: bool = False
    magnitude: int = 0
    operations: int = 0


@lru_cache(maxsize=64)
def parse_augmentation(spec: str) -> Augmentation:
    """Return what `spec` says: "none", or words joined by +, in any order.

    "crop" (padding 4), "crop2" (padding 2), "flip", "rand-m9-n2" (RandAugment of magnitude 9 with 2 operations, in
    timm's notation). Raises InputError for any other word, and for one that stands twice.

    >>> parse_augmentation("crop2+flip")
    Augmentation(crop=2, flip=True, magnitude=0, operations=0)
    """
    words = [] if spec == "none" else spec.split("+")
    crop, flip, magnitude, operations = 0, False, 0, 0
    for word in words:
        cropped, random = CROP.fullmatch(word), RANDOM.fullmatch(word)
        if cropped and not crop:
            crop = int(cropped[1] or 4)
        elif random and not operations:
            magnitude, operations = int(random[1]), int(random[2])
        elif word == "flip" and not flip:
            flip = True
        else:
            raise InputError(
                f"augment: {spec!r} is not known; write none, crop (padding 4), crop2 (padding 2, or any to 99), flip, "
                "or crop+flip; rand-m9-n2 (RandAugment, magnitude 1 to 10, 1 to 9 operations) can be added with +"
            )
    return Augmentation(crop, flip, magnitude, operations)


def augment(images: Tensor, spec: str, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
    """Return images [b, C, H, W] of the same dtype, augmented as `spec` says; "none" returns them as they are.

    `rows` (int64 [b]) says which of the images [n, C, H, W] make the batch; without it all do, in their order. A crop
    pads with zeros (black, where images are pixels) and cuts a window of the old size at random; a flip mirrors left
    and right; RandAugment needs uint8 images. Draws come from `generator`, on its own device (one on the CPU gives the
    same crops and flips everywhere): first the crops, then the flips, then the seed of RandAugment.

    Raises InputError for an unknown `spec`.

    >>> augment(torch.arange(4).view(1, 1, 1, 4), "crop1+flip", torch.Generator().manual_seed(1)).shape
    torch.Size([1, 1, 1, 4])
    """
    plan = parse_augmentation(spec)
    count = len(images) if rows is None else len(rows)
    shifts = mirrored = None
    if plan.crop:
        shifts = torch.randint(2 * plan.crop + 1, (2, count), generator=generator, device=generator.device)
    if plan.flip:
        mirrored = torch.rand(count, generator=generator, device=generator.device) < 0.5
    on_cpu = images.device.type == "cpu" and images.dtype == torch.uint8
    if on_cpu and compiling.AVAILABLE and (plan.crop or plan.flip):
        images = _compiled(images, rows, plan.crop, shifts, mirrored)
    else:
        images = images if rows is None else images[rows.to(images.device)]
        images = images if shifts is None else _crop(images, plan.crop, shifts.to(images.device))
        images = images if mirrored is None else _flip(images, mirrored.to(images.device))
    if plan.operations:
        from negmerge.tasks.image_classification.randaugment import rand_augment

        images = rand_augment(images, plan.magnitude, plan.operations, generator)
    return images


def _crop(images: Tensor, padding: int, shifts: Tensor) -> Tensor:
    height, width = images.shape[2:]
    windows = functional.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)  # a view
    return windows[torch.arange(len(images), device=images.device), :, shifts[0], shifts[1]]


def _flip(images: Tensor, mirrored: Tensor) -> Tensor:
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _compiled(
    images: Tensor, rows: Tensor | None, padding: int, shifts: Tensor | None, mirrored: Tensor | None
) -> Tensor:
    """Do what `_crop` and `_flip` do to uint8 images on the CPU, in one pass."""
    rows = torch.arange(len(images)) if rows is None else rows.cpu()
    corners = torch.zeros(2, len(rows), dtype=torch.int64) if shifts is None else shifts.cpu() - padding
    mirrored = torch.zeros(len(rows), dtype=torch.bool) if mirrored is None else mirrored.cpu()
    batch = torch.empty(len(rows), *images.shape[1:], dtype=torch.uint8)
    where = [tensor.numpy() for tensor in (rows, corners[0], corners[1], mirrored)]
    cropping.crop_and_flip(images.contiguous().numpy(), *where, batch.numpy())
    return batch
