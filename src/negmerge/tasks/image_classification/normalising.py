"""From bytes to normalised float32, in the layout that the model is computed in.

On the CPU by compiled loops on one thread: the work is small, and torch's threads cost more than they give, above all
while others train beside them. Compiled by numba where it is installed, else torch does the work, with the same bits.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.execution.compiling import AVAILABLE, compiled


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return uint8 images [b, C, H, W] as float32, in their layout: (x / 255 − mean) / std for each channel.

    One value serves all channels. Raises InputError for another number of them.

    >>> normalise(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), (0.5,), (0.5,))
    tensor([[[[-1.,  1.]]]])
    """
    channels = images.shape[1]
    if not (len(mean) in (1, channels) and len(std) in (1, channels)):
        raise InputError(f"model.mean and model.std must have 1 or {channels} values, got {len(mean)} and {len(std)}")
    if not _is_plain(images):
        return _computed(images, mean, std)
    table = _table(channels, mean, std)
    out = torch.empty_like(images, dtype=torch.float32)
    if images.is_contiguous():
        _look_up_planes(images.flatten(2).numpy(), table, out.flatten(2).numpy())
    else:
        _look_up_pixels(_pixels_of(images).numpy(), table, _pixels_of(out).numpy())
    return out


def channels_last(images: Tensor) -> Tensor:
    """Return images [b, C, H, W] laid out as [b, H, W, C] in memory."""
    if images.is_contiguous(memory_format=torch.channels_last) or not (_is_plain(images) and images.is_contiguous()):
        return images.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(images, memory_format=torch.channels_last)
    _interleave(images.flatten(2).numpy(), out.permute(0, 2, 3, 1).flatten(1, 2).numpy())
    return out


@lru_cache(maxsize=16)
def _table(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Return what each of the 256 values of a byte becomes, float32 [C, 256]."""
    values = torch.arange(256, dtype=torch.uint8).repeat(1, channels, 1, 1)
    return _computed(values, mean, std).reshape(channels, 256).numpy()


def _computed(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shift = torch.tensor(mean, device=images.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, device=images.device).view(1, -1, 1, 1)
    return images.to(torch.float32).div_(255.0).sub_(shift).div_(scale)


def _is_plain(images: Tensor) -> bool:
    """Whether the compiled loops can read the images."""
    fits = images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last)
    return AVAILABLE and images.device.type == "cpu" and images.dtype == torch.uint8 and images.dim() == 4 and fits


def _pixels_of(images: Tensor) -> Tensor:
    """Return images that are channels-last as [b · H · W, C], a view."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


@compiled
def _look_up_planes(images, table, out):  # type: ignore[no-untyped-def]
    for i in range(images.shape[0]):
        for c in range(images.shape[1]):
            pixels, values, target = images[i, c], table[c], out[i, c]
            for j in range(len(pixels)):
                target[j] = values[pixels[j]]


@compiled
def _look_up_pixels(pixels, table, out):  # type: ignore[no-untyped-def]
    # By channel, so that one line of the table is in use, over blocks that stay in the cache.
    count, channels = pixels.shape
    source, target, step = pixels.reshape(-1), out.reshape(-1), np.uintp(channels)
    for start in range(0, count, 1024):
        for c in range(channels):
            values, k = table[c], np.uintp(start * channels + c)
            for _ in range(start, min(count, start + 1024)):
                target[k] = values[source[k]]
                k += step


@compiled
def _interleave(planes, out):  # type: ignore[no-untyped-def]
    for i in range(planes.shape[0]):
        for c in range(planes.shape[1]):
            plane = planes[i, c]
            for j in range(len(plane)):
                out[i, j, c] = plane[j]
