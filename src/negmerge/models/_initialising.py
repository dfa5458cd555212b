"""Weights from a seed, without touching the random numbers of the rest of the program."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from negmerge.errors import InputError


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return the module that `make` makes on the CPU under a seed; all global generators are as before."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
        return make()


def he_initialise(model: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 2 / fan-out), in the order of the model; others stay.

    Source: He et al., Delving Deep into Rectifiers, 2015 (arXiv 1502.01852).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return uint8 images as float32: (x / 255 − mean) / std for each channel; one value serves all channels.

    >>> normalise(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), (0.5,), (0.5,))
    tensor([[[[-1.,  1.]]]])
    """
    channels = images.shape[1]
    if not (len(mean) in (1, channels) and len(std) in (1, channels)):
        raise InputError(f"model.mean and model.std must have 1 or {channels} values, got {len(mean)} and {len(std)}")
    shift = torch.tensor(mean, device=images.device).view(1, -1, 1, 1)
    scale = torch.tensor(std, device=images.device).view(1, -1, 1, 1)
    return images.to(torch.float32).div_(255.0).sub_(shift).div_(scale)
