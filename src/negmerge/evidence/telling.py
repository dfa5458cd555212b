"""How well members are told from others by a number of each: the AUC, and the share found at few false alarms."""

import torch
from torch import Tensor


def shares_below(values: Tensor, others: Tensor) -> Tensor:
    """Return for each value the share of the others, in percent, that is smaller; ties count as half. float64 [n].

    The mean is 100 · AUC.

    >>> shares_below(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])).tolist()
    [75.0, 100.0]
    """
    ordered = others.sort().values.contiguous()
    below, through = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return 50.0 * (below + through).double() / len(ordered)


def found_at(values: Tensor, others: Tensor, rate: float) -> Tensor:
    """Return 100 for each value above all but ⌊rate · m⌋ of the m others, else 0, float64 [n]: its mean is the TPR.

    >>> found_at(torch.tensor([1.0, 5.0]), torch.arange(4.0), 0.3).tolist()
    [0.0, 100.0]
    """
    allowed = int(rate * len(others) + 1e-9)
    threshold = others.sort(descending=True).values[allowed]
    return 100.0 * (values > threshold).double()
