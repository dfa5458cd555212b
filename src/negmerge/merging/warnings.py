"""What to be wary of in the members of a merge, each in one line with its one advice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from negmerge.checkpoints.adapter import BoundAdapter
from negmerge.errors import shortened
from negmerge.merging.agreement import Agreement
from negmerge.merging.health import UNLIKE, odd_members
from negmerge.merging.methods.consensus import votes_needed

if TYPE_CHECKING:
    from negmerge.merging.tally import TensorCount
    from negmerge.merging.term import Term

NEAR_CHANCE = 1.5
MOSTLY_ZERO = 0.5
# The cosines of matrices in pools of known origin are in docs/merging.md, by benchmarks/other_base.py. Members of
# another seed have |cos(θᵢ, θ₀)| ≤ 0.04, honest members, trained to ruin included, 0.23 or more. A member that lost
# its way has any cosine, but moves across θ₀ (cosine of τᵢ with θ₀ about 0), where one of another base moves away.
UNLIKE_BASE, AWAY = 0.2, -0.2
# A base that has a part of the members' weights, as with layers in other places: honest members so far from their base
# differ from one another, or weight decay shrank them.
PARTLY_UNLIKE, ONE_VECTOR, SHRUNK = 0.7, 0.8, 0.9


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


def term_warnings(term: Term, counts: Sequence[TensorCount], agreement: Agreement) -> list[str]:
    """Return what is odd about the members of a term of a merge, of which `counts` were kept.

    Signs are compared with chance as the consensus counts them, or, for other methods, by those that all members share.
    """
    names = [str(member.path) for member in term.pool.members]
    whole = [i for i, member in enumerate(term.pool.members) if not isinstance(member, BoundAdapter)]
    zeros = str(getattr(term.merger.at(""), "zeros", ""))
    common = [count for count in counts if count.name not in term.pool.partial]
    if term.merger.name != "consensus" or any("[" in key for key in term.merger.settings):
        return pool_warnings(names, agreement, zeros=zeros, whole=whole)
    threshold = float(getattr(term.merger.at(""), "threshold", 1.0))
    kept, total = sum(count.kept for count in common), sum(count.elements for count in common)
    if not kept:  # which effect_warnings says, with its advice
        return pool_warnings(names, agreement, 1.0, 0.0, zeros, whole)
    return pool_warnings(names, agreement, kept / total, chance_level(len(names), threshold), zeros, whole)


def pool_warnings(
    names: Sequence[str],
    agreement: Agreement,
    consensus: float | None = None,
    chance: float | None = None,
    zeros: str = "",
    whole: Sequence[int] | None = None,
) -> list[str]:
    """Return what is odd about the members of a pool.

    `consensus` is the share of elements that the consensus keeps and `chance` that of independent signs, both of
    unanimous signs unless given; `zeros` is that setting of the method, where it has one; `whole` as in `other_base`.
    Where members are of another base, their signs say nothing and are not judged.
    """
    foreign = other_base(names, agreement, whole)
    if foreign:
        return foreign
    if len(names) == 1:
        return ["one member: every element that changed is kept, which is plain task arithmetic; give more members"]
    share, level = agreement.unanimous, chance_level(len(names))
    if consensus is not None and chance is not None and NEAR_CHANCE * chance < 1:  # else chance lets nearly all through
        share, level = consensus, chance
    found = []
    cosine = agreement.cosine()
    zeros_share, apart = agreement.zero_share, [names[i] for i in _apart(agreement)]
    unlike = [names[i] for i in odd_members(cosine, agreement.relative_size()) if names[i] not in apart]
    if zeros_share > MOSTLY_ZERO:
        advice = "--zeros abstain lets the others decide" if zeros == "veto" else "save the members in float32"
        found.append(f"{100 * zeros_share:.0f} % of the differences are exactly 0 (half precision?); {advice}")
    if apart:
        verb, them = ("points", "it") if len(apart) == 1 else ("point", "them")
        found.append(
            f"unstable-signs: {shortened(apart, 3)} {verb} away from the other members (mean cosine ≤ 0); "
            f"leave {them} out"
        )
    if unlike:
        verb, them = ("has", "it") if len(unlike) == 1 else ("have", "them")
        found.append(
            f"unstable-signs: {shortened(unlike, 3)} {verb} little in common with the other members (below "
            f"{100 * UNLIKE:.0f} % of what they have, or hardly trained; see `negmerge inspect`); leave {them} out"
        )
    if not found and share < NEAR_CHANCE * level:
        found.append(
            f"unstable-signs: consensus {100 * share:.1f} % is not clearly above the {100 * level:.1f} % "
            "of independent signs; train the members longer, or at rates that do not diverge"
        )
    return found


def _apart(agreement: Agreement) -> list[int]:
    """Return the members whose mean cosine with the others is 0 or less, where these agree among themselves."""
    means = mean_cosines(agreement)
    apart = [i for i, mean in enumerate(means) if mean <= 0.0]
    if 2 * len(apart) > len(means):  # one that points the other way can take all means below 0
        apart = [means.index(min(means))]
    rows = agreement.cosine()
    rest = [i for i in range(len(means)) if i not in apart]
    pairs = [rows[i][j] for i in rest for j in rest if j < i]
    noise = 1 / math.sqrt(max(1, agreement.elements))  # of the cosine of two random vectors
    return apart if pairs and sum(pairs) / len(pairs) > 4 * noise else []


def other_base(names: Sequence[str], agreement: Agreement, whole: Sequence[int] | None = None) -> list[str]:
    """Return a warning of members that were not fine-tuned from this base, in one line.

    Their task vectors point away from θ₀ (cosine of −0.2 or less), and cos(θᵢ, θ₀) is below 0.2; or it is below 0.7,
    the task vectors are nearly one (mean cosine of 0.8 or more) and the member is no shrunk base (‖θᵢ‖ ≥ 0.9 ‖θ₀‖), as
    where a part of the base is another model's.
    `whole` are the places of the members to judge, all unless given: a task vector of an adapter has no base in it.
    """
    to_base, away, sizes = agreement.to_base(), agreement.away_from_base(), agreement.relative_size()
    means = mean_cosines(agreement)
    alike = [mean >= ONE_VECTOR and norm >= SHRUNK for mean, norm in zip(means, agreement.own_size(), strict=True)]
    limits = [PARTLY_UNLIKE if len(names) > 1 and one else UNLIKE_BASE for one in alike]
    judged = range(len(names)) if whole is None else whole
    odd = [i for i in judged if away[i] <= AWAY and to_base[i] < limits[i]]
    if not odd:
        return []
    which = f"all {len(names)} members are" if len(odd) == len(names) > 1 else shortened([names[i] for i in odd], 3)
    verb = "" if len(odd) == len(names) > 1 else (" is" if len(odd) == 1 else " are")
    nearest = max(odd, key=lambda i: to_base[i])
    return [
        f"other-base: {which}{verb} not like a fine-tuning of this base (cos(θᵢ, θ₀) = {to_base[nearest]:.2f}, "
        f"‖τᵢ‖/‖θ₀‖ = {sizes[nearest]:.2g}); give the checkpoint that the members were trained from"
    ]


def mean_cosines(agreement: Agreement) -> list[float]:
    """Return the mean cosine of each task vector with the others; 1 for a member alone, NaN where one of them is 0."""
    rows = agreement.cosine()
    if len(rows) == 1:
        return [1.0]
    return [sum(value for j, value in enumerate(row) if j != i) / (len(row) - 1) for i, row in enumerate(rows)]
