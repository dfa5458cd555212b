"""DARE: drop elements at random, rescale the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from negmerge.merging.averaging import divided
from negmerge.merging.drawing import coins
from negmerge.merging.electing import disjoint_mean, elect
from negmerge.merging.method import WHOLE, Merged, MergeSettings, Place
from negmerge.merging.methods import uniform
from negmerge.merging.trimming import Density

if TYPE_CHECKING:
    from torch import Tensor

SUMMARY = "drop elements of each task vector at random and rescale the rest, then average"
REFERENCE = "Yu et al., Language Models are Super Mario (DARE), ICML 2024 (arXiv 2311.03099)"
REACH = "element"
RANDOM = True


class Settings(MergeSettings):
    """How much is kept, and what becomes of the rest."""

    density: Density = 0.5
    rescale: bool = Field(True, description="divide what is kept by the density, so that the mean stays")
    mean: Literal["all", "elected"] = Field("all", description="over all members, or those of a sign elected by mass")


def merge(deltas: Tensor, settings: Settings, place: Place = WHOLE, statistic: Tensor | None = None) -> Merged:
    """Merge task vectors by DARE.

        τ̂ᵢ(j) = mᵢ(j)·τᵢ(j) / d,  mᵢ(j) ~ Bernoulli(d) independently;  τ(j) = Σᵢ τ̂ᵢ(j) / N

    d is the `density`; without `rescale` nothing is divided by it. mean="elected" elects signs by mass and averages
    those who have it, as TIES does.

    deltas: [N, n], float32 or float64; the result is [n] of the same dtype, with the mask [n] of the elements that at
    least one member kept (mean="elected": that have a winner). Members are summed in their order. m is drawn by the
    seed, the member, the tensor and the element's index alone; zeros are drawn for like any other value.

    >>> import torch
    >>> merge(torch.ones(2, 8), Settings()).delta.unique().tolist()  # dropped by both, by one, by none
    [0.0, 1.0, 2.0]

    Source: arXiv 2311.03099, equation 1 (drop rate p = 1 − d).
    """
    import torch

    members, count = deltas.shape
    drawn = torch.stack([coins(place, i, count, settings.density) for i in range(members)]).to(deltas.device)
    sparse = torch.where(drawn, divided(deltas, settings.density) if settings.rescale else deltas, 0.0)
    if settings.mean == "elected":
        return Merged(*disjoint_mean(sparse, elect(sparse, "mass")))
    return Merged(uniform.mean(sparse), drawn.any(0))
