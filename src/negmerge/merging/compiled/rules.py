"""Which methods have compiled loops, and how the loops decide for each."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from negmerge.merging.compiled.folding import COUNT_AGREEING, COUNT_ALL, ELECT_COUNT, ELECT_MASS, STRICT, SUM
from negmerge.merging.merger import Merger
from negmerge.merging.methods.consensus import votes_needed
from negmerge.merging.passes.collecting import ranked

MERGING = ("consensus", "uniform", "task-arithmetic", "ties", "majority-sign")


@dataclass(frozen=True)
class Rule:
    """How the compiled loop decides: its kind, and the votes that m non-zero members must give, for m from 0 to N."""

    kind: int
    need: np.ndarray[Any, Any]


def has_loop(merger: Merger) -> bool:
    """Whether compiled loops merge by a method, or search the magnitudes that it wants to know first."""
    return merger.name in MERGING or ranked(merger)


def rule_of(merger: Merger, members: int) -> Rule | None:
    """Return the rule of a method, all of whose settings hold for all tensors, or None where it has no loop."""
    if merger.name not in MERGING:
        return None
    settings: Any = merger.at("")
    nothing = np.zeros(members + 1, np.int32)
    if merger.name == "task-arithmetic":
        return Rule(SUM, nothing) if settings.weights is None else None
    if merger.name == "uniform":
        return Rule(SUM, nothing)
    if merger.name in ("ties", "majority-sign"):
        return Rule(ELECT_COUNT if settings.elect_by == "count" else ELECT_MASS, nothing)
    agreeing = settings.mean == "agreeing"
    if settings.zeros == "veto":
        votes = [votes_needed(settings.threshold, members)] * (members + 1)
        if votes[0] == members and not agreeing:
            return Rule(STRICT, nothing)
    else:
        quorum, never = -(-members // 2), members + 1
        votes = [max(1, votes_needed(settings.threshold, m)) if m >= quorum else never for m in range(members + 1)]
    return Rule(COUNT_AGREEING if agreeing else COUNT_ALL, np.array(votes, np.int32))
