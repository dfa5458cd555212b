"""The layers that keep running statistics."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def statistics_layers(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch-norm layers that keep running statistics, in the order of the model.

    >>> len(statistics_layers(nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False))))
    1
    """
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
