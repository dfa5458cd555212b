"""How the weights of convolutional networks are drawn."""

from torch import nn


def he_initialise(model: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 2 / fan-out), in the order of the model; others stay.

    Source: He et al., Delving Deep into Rectifiers, 2015 (arXiv 1502.01852).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
