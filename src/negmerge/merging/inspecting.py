"""What a pool looks like before it is merged: consensus per tensor, cosines, zeros, and what to be wary of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from negmerge.merging.methods.consensus import check_threshold, votes_needed, winning_signs
from negmerge.merging.passes.streaming import TensorCount, stream
from negmerge.merging.pool import open_pool

NEAR_CHANCE = 1.5
MOSTLY_ZERO = 0.5


@dataclass(frozen=True)
class Inspection:
    """The statistics of a pool; shares are from 0 to 1, `cosine` is N × N in the members' order."""

    members: tuple[str, ...]
    consensus: float
    chance: float
    zero_share: float
    cosine: tuple[tuple[float, ...], ...]
    warnings: tuple[str, ...]
    tensors: tuple[TensorCount, ...]
    dtypes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the statistics as `negmerge inspect --json` prints them."""
        return {
            "members": list(self.members),
            "elements": sum(tensor.elements for tensor in self.tensors),
            "consensus": self.consensus,
            "chance": self.chance,
            "zero_share": self.zero_share,
            "cosine": [list(row) for row in self.cosine],
            "warnings": list(self.warnings),
            "tensors": [
                {
                    "name": tensor.name,
                    "shape": list(tensor.shape),
                    "dtype": dtype,
                    "elements": tensor.elements,
                    "consensus": tensor.kept / tensor.elements if tensor.elements else 0.0,
                }
                for tensor, dtype in zip(self.tensors, self.dtypes, strict=True)
            ],
        }


def inspect_checkpoints(
    base: Path | str,
    members: Sequence[Path | str],
    *,
    threshold: float = 1.0,
    zeros: str = "veto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    workers: int | None = None,
) -> Inspection:
    """Measure a pool in one streamed pass, and write nothing.

    consensus: the share of merged elements that the consensus method would keep; chance: the share that independent
    fair signs would give; zero_share: the share of all task vector elements that are exactly 0; cosine: between the
    members' whole task vectors, accumulated in float64. Raises InputError as `merge_checkpoints` does.
    """
    check_threshold(threshold)
    with open_pool(Path(base), [Path(member) for member in members], include, exclude) as pool:
        count = len(pool.members)
        parts: dict[tuple[str, int], tuple[Tensor, int]] = {}

        def visit(name: str, start: int, _: Tensor, deltas: Tensor) -> int:
            up, down = winning_signs(deltas, threshold, zeros)
            exact = deltas.double()
            parts[name, start] = exact @ exact.T, int(torch.count_nonzero(deltas == 0))
            return int(torch.count_nonzero(up | down))

        counts = stream(pool, visit, workers=workers)
        products = torch.zeros(count, count, dtype=torch.float64)
        nulls = 0
        for key in sorted(parts):  # in one order, whatever the threads did
            products += parts[key][0]
            nulls += parts[key][1]
        norms = products.diagonal().sqrt()
        cosine = (products / torch.outer(norms, norms)).clamp(-1.0, 1.0)
        elements = sum(tensor.elements for tensor in counts)
        consensus = sum(tensor.kept for tensor in counts) / elements
        chance = chance_level(count, threshold)
        zero_share = nulls / (elements * count)
        names = tuple(str(member.path) for member in pool.members)
        rows = tuple(tuple(row) for row in cosine.tolist())
        return Inspection(
            members=names,
            consensus=consensus,
            chance=chance,
            zero_share=zero_share,
            cosine=rows,
            warnings=tuple(_warnings(names, consensus, chance, zero_share, rows)),
            tensors=tuple(counts),
            dtypes=tuple(str(pool.base.dtype(name)) for name in pool.merged),
        )


def chance_level(members: int, threshold: float = 1.0) -> float:
    """Return the share of elements that independent fair signs would let through.

    P(p ≥ need) + P(n ≥ need) − 2·P(both), binomial with 1/2; 2^(1−N) at threshold 1.

    >>> chance_level(3)
    0.25
    """
    need = max(1, votes_needed(threshold, members))
    ways = sum(math.comb(members, up) for up in range(members + 1) if (up >= need) != (members - up >= need))
    return ways / 2**members


def _warnings(
    names: Sequence[str], consensus: float, chance: float, zero_share: float, cosine: Sequence[Sequence[float]]
) -> list[str]:
    found = []
    if len(names) == 1:
        found.append("one member: every element that changed is kept, which is plain task arithmetic")
    elif consensus < NEAR_CHANCE * chance:
        found.append(
            f"unstable-signs: consensus {100 * consensus:.1f} % is near the {100 * chance:.1f} % of independent signs"
        )
    if zero_share > MOSTLY_ZERO:
        found.append(
            f"{100 * zero_share:.0f} % of the differences are exactly 0 (half precision?); "
            "under zeros=veto each of them vetoes its element, abstain lets it pass"
        )
    for i, name in enumerate(names):
        others = [value for j, value in enumerate(cosine[i]) if j != i]
        if others and sum(others) / len(others) <= 0.0:
            found.append(f"unstable-signs: {name} points away from the other members (mean cosine ≤ 0)")
    return found
