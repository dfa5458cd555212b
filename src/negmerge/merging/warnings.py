"""What to be wary of in a pool and in a merge, each in one line with its one advice."""

import math
from collections.abc import Sequence

from negmerge.merging.agreement import Agreement
from negmerge.merging.methods.consensus import votes_needed

NEAR_CHANCE = 1.5
MOSTLY_ZERO = 0.5


def chance_level(members: int, threshold: float = 1.0) -> float:
    """Return the share of elements that independent fair signs would let through.

    P(p ≥ need) + P(n ≥ need) − 2·P(both), binomial with 1/2; 2^(1−N) at threshold 1.

    >>> chance_level(3)
    0.25
    """
    need = max(1, votes_needed(threshold, members))
    ways = sum(math.comb(members, up) for up in range(members + 1) if (up >= need) != (members - up >= need))
    share: float = ways / 2**members
    return share


def pool_warnings(
    names: Sequence[str], agreement: Agreement, consensus: float | None = None, chance: float | None = None
) -> list[str]:
    """Return what is odd about the members of a pool.

    `consensus` is the share of elements that the consensus keeps and `chance` that of independent signs, both of
    unanimous signs unless given.
    """
    share = agreement.unanimous if consensus is None else consensus
    level = chance_level(len(names)) if chance is None else chance
    found = []
    if len(names) == 1:
        found.append("one member: every element that changed is kept, which is plain task arithmetic")
    elif share < NEAR_CHANCE * level:
        found.append(
            f"unstable-signs: consensus {100 * share:.1f} % is near the {100 * level:.1f} % of independent signs"
        )
    if agreement.zero_share > MOSTLY_ZERO:
        found.append(
            f"{100 * agreement.zero_share:.0f} % of the differences are exactly 0 (half precision?); "
            "under zeros=veto each of them vetoes its element, abstain lets it pass"
        )
    for i, (name, row) in enumerate(zip(names, agreement.cosine(), strict=True)):
        others = [value for j, value in enumerate(row) if j != i]
        if others and sum(others) / len(others) <= 0.0:
            found.append(f"unstable-signs: {name} points away from the other members (mean cosine ≤ 0)")
    return found
