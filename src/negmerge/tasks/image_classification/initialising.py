"""How the weights of convolutional networks are drawn."""

from collections.abc import Callable

from torch import nn

from negmerge.seeding import seeded


def he_initialised(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return what `make` makes under a seed, the weights of all convolutions drawn anew from N(0, 2 / fan-out).

    They are drawn in the order of the model; other weights are as torch draws them.

    Source: He et al., Delving Deep into Rectifiers, 2015 (arXiv 1502.01852).
    """

    def drawn() -> nn.Module:
        model = make()
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return model

    return seeded(drawn, seed)
