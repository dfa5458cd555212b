"""DARE: drop elements at random, rescale the rest."""

from typing import Literal

import torch
from torch import Tensor

from negmerge.errors import InputError
from negmerge.merging.methods import WHOLE, Place
from negmerge.merging.methods._drawing import coins
from negmerge.merging.methods._electing import disjoint_mean, elect
from negmerge.merging.methods._trimming import check_density

SUMMARY = "drop elements of each task vector at random and rescale the rest, then average"
REFERENCE = "Yu et al., Language Models are Super Mario (DARE), ICML 2024 (arXiv 2311.03099)"
REACH = "element"
RANDOM = True


def merge(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    density: float = 0.5,
    rescale: bool = True,
    mean: Literal["all", "elected"] = "all",
) -> Tensor:
    """Merge task vectors by DARE.

        τ̂ᵢ(j) = mᵢ(j)·τᵢ(j) / d,  mᵢ(j) ~ Bernoulli(d) independently;  τ(j) = Σᵢ τ̂ᵢ(j) / N

    d is the `density`; without `rescale` nothing is divided by it. mean="elected" elects signs by mass and averages
    those who have it, as TIES does.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype. Members are summed in their order. m is
    drawn by the seed, the member, the tensor and the element's index alone.

    Raises InputError for a density outside (0, 1], a rescale that is no boolean and an unknown mean.

    >>> merge(torch.ones(2, 8)).unique().tolist()  # dropped by both, by one, by none
    [0.0, 1.0, 2.0]

    Source: arXiv 2311.03099, equation 1 (drop rate p = 1 − d).
    """
    return merge_with_mask(deltas, place=place, density=density, rescale=rescale, mean=mean)[0]


def merge_with_mask(
    deltas: Tensor,
    *,
    place: Place = WHOLE,
    density: float = 0.5,
    rescale: bool = True,
    mean: Literal["all", "elected"] = "all",
) -> tuple[Tensor, Tensor]:
    """Return what `merge` returns, and the mask [n] of the elements that at least one member kept."""
    check_density(density)
    if mean not in ("all", "elected"):
        raise InputError(f"mean must be all or elected, got {mean!r}")
    if not isinstance(rescale, bool):
        raise InputError(f"rescale must be true or false, got {rescale!r}")
    members, count = deltas.shape
    drawn = torch.stack([coins(place, i, count, density) for i in range(members)]).to(deltas.device)
    sparse = torch.where(drawn, deltas / density if rescale else deltas, 0.0)
    if mean == "elected":
        return disjoint_mean(sparse, elect(sparse, "mass"))
    total = torch.zeros_like(sparse[0])
    for delta in sparse:
        total += delta
    return total / members, drawn.any(0)
