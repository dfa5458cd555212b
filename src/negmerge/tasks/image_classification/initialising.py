"""Weights from a seed, without touching the random numbers of the rest of the program."""

from collections.abc import Callable

import torch
from torch import nn


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
