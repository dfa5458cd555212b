"""Whether a member of a pool is like the others: what finds the one that went wrong, or was trained on other rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from negmerge.merging.pool.fitted import Pool

LOOKED_AT = 2**20  # elements of a pool on which signs are compared, at most; of larger ones a fixed sample
BLOCK = 2**12
FEWEST = 5  # members below which nobody can tell which of them is the odd one
# Measured on honest and on hostile pools by benchmarks/bad_members.py: docs/results/bad-members.md.
UNLIKE = 0.3  # of what the others have in common among themselves: a member that has less with them is named
HARDLY = 1e-3  # of the others' median size: a member that moved less was not trained
LEAST = 0.1  # likeness of the others among themselves: below it there is nothing to be unlike

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class MemberHealth:
    """How a member stands to the others.

    `likeness` is the cosine of τᵢ with the others' mean direction, Σ τⱼ/‖τⱼ‖ over j ≠ i, NaN for τᵢ = 0; `usual` the
    median of that of the other members among themselves, NaN where there is one; `size` is ‖τᵢ‖ over the median of the
    others' norms; `with_majority` the share of the elements whose sign in τᵢ is that of the majority of the others, and
    `unanimous_without` the share on
    whose sign all others agree; both None where signs were not looked at. `bad` says whether it is to be left out.
    """

    member: str
    likeness: float
    usual: float
    size: float
    bad: bool
    with_majority: float | None = None
    unanimous_without: float | None = None

    @property
    def text(self) -> str:
        """The numbers in one line, as `negmerge inspect` prints them."""
        signs = ""
        if self.with_majority is not None and self.unanimous_without is not None:
            signs = f", {100 * self.with_majority:.0f} % of its signs are the others' majority's, "
            signs += f"{100 * self.unanimous_without:.2f} % unanimous without it"
        unlike = "UNLIKE THE OTHERS, " if self.bad else ""
        likeness = f"likeness {self.likeness:.3f} (usual {self.usual:.3f})"
        return f"{unlike}{likeness}, size × {self.size:.2g}{signs}   {self.member}"

    def as_json(self) -> dict[str, Any]:
        """Return the numbers by name; None for what is not known."""
        return {key: None if value != value else value for key, value in vars(self).items()}


def odd_members(cosine: Matrix, sizes: Sequence[float] | None = None) -> list[int]:
    """Return the members that are unlike the others, by the cosines [N, N] and norms of all task vectors.

    The likeness of member i to others S is Σ_j C_ij / √(Σ_jk C_jk), its cosine with the mean of their unit vectors, so
    that large members count no more than small ones; its nearness is max_j C_ij. Members are taken out one by one, the
    least like first, while likeness *and* nearness are below UNLIKE of the medians of the others among themselves (two
    camps of honest members are unlike each other, but each has a companion), more than half of the pool remains, and at
    least FEWEST − 1. Where those medians are below LEAST there is nothing to be unlike. Members of a size below HARDLY
    of the others' median come last, those that did not move at all (all their cosines are NaN) among them; the others
    are judged without these. Where another cosine is NaN, or with fewer than FEWEST members, nobody is named.

    >>> odd_members([[1, 0.8, 0.8, 0.8, 0], [0.8, 1, 0.8, 0.8, 0], [0.8, 0.8, 1, 0.8, 0], [0.8, 0.8, 0.8, 1, 0],
    ...     [0, 0, 0, 0, 1]])
    [4]
    """
    matrix = np.array(cosine, dtype=np.float64)
    still = _still(matrix, sizes)
    rest, found = [i for i in range(len(matrix)) if i not in still], []
    if len(matrix) < FEWEST or not np.isfinite(matrix[np.ix_(rest, rest)]).all():
        return []
    while len(rest) >= FEWEST and 2 * (len(rest) - 1) > len(matrix):
        shares = {i: _shares(matrix, i, rest) for i in rest}
        unlike = [i for i in rest if max(shares[i]) < UNLIKE]
        if not unlike:
            break
        worst = min(unlike, key=shares.__getitem__)
        found.append(worst)
        rest.remove(worst)
    hardly = [] if sizes is None else [i for i in rest if sizes[i] < HARDLY * median(sizes[j] for j in rest)]
    return [*found, *sorted([*hardly, *still])]


def _still(matrix: np.ndarray[Any, Any], sizes: Sequence[float] | None) -> list[int]:
    """Return the members that did not move, where most did."""
    found = [] if sizes is None else [i for i, size in enumerate(sizes) if size == 0 and np.isnan(matrix[i]).all()]
    return found if 2 * len(found) < len(matrix) else []


def _shares(matrix: np.ndarray[Any, Any], member: int, rest: Sequence[int]) -> tuple[float, float]:
    """Return a member's likeness and nearness to the rest as shares of theirs; 1 where they have nothing in common."""
    others = [j for j in rest if j != member]
    usual, near = _usual(matrix, others), median(_nearness(matrix, j, others) for j in others)
    if usual < LEAST or near < LEAST:
        return 1.0, 1.0
    return _likeness(matrix, member, others) / usual, _nearness(matrix, member, others) / near


def _nearness(matrix: np.ndarray[Any, Any], member: int, others: Sequence[int]) -> float:
    return max(float(matrix[member, j]) for j in others if j != member)


def _usual(matrix: np.ndarray[Any, Any], among: Sequence[int]) -> float:
    return median(_likeness(matrix, j, [k for k in among if k != j]) for j in among) if len(among) > 1 else math.nan


def _likeness(matrix: np.ndarray[Any, Any], member: int, others: Sequence[int]) -> float:
    size = float(matrix[np.ix_(others, others)].sum())
    return float(matrix[member, others].sum()) / math.sqrt(size) if size > 0 else 0.0


def health_of(
    names: Sequence[str], cosine: Matrix, sizes: Sequence[float], signs: SignCounts | None = None
) -> tuple[MemberHealth, ...]:
    """Return how each member stands to the others that are not odd, by cosines [N, N] and norms ‖τᵢ‖."""
    matrix, odd = np.array(cosine, dtype=np.float64), odd_members(cosine, sizes)
    found = []
    for i, name in enumerate(names):
        others = [j for j in range(len(names)) if j != i and j not in odd]
        judged = [i, *others]
        known = bool(others) and bool(np.isfinite(matrix[np.ix_(judged, judged)]).all())
        middle = median(sizes[j] for j in others) if others else 0.0
        found.append(
            MemberHealth(
                name,
                _likeness(matrix, i, others) if known else math.nan,
                _usual(matrix, others) if known else math.nan,
                sizes[i] / middle if middle > 0 else math.nan,
                i in odd,
                None if signs is None else signs.with_majority[i],
                None if signs is None else signs.unanimous_without[i],
            )
        )
    return tuple(found)


@dataclass(frozen=True)
class SignCounts:
    """Shares of the elements looked at, for each member: see MemberHealth. With one member both are NaN."""

    with_majority: tuple[float, ...]
    unanimous_without: tuple[float, ...]


def count_signs(pool: Pool) -> SignCounts:
    """Compare the signs of a pool's members, on all elements that all can change or on a fixed sample of 2^20 of them.

    A zero is no sign: it agrees with nobody. Elements on whose sign the others have no majority are left out of
    `with_majority`, not of `unanimous_without`.
    """
    from negmerge.checkpoints.base import elements
    from negmerge.merging.passes.plain import read_deltas

    members = len(pool.members)
    names = [name for name in pool.merged if name not in pool.partial]
    sizes = {name: elements(pool.base.shape(name)) for name in names}
    every = BLOCK * max(1, -(-sum(sizes.values()) // LOOKED_AT))
    same, decided, without, seen = (np.zeros(members, np.int64) for _ in range(4))
    first = 0  # of the blocks of a sample, where the next one begins in the tensor: they lie evenly over all tensors
    for name in names:
        starts = range(first, sizes[name], every)
        if every > BLOCK:
            first += len(starts) * every - sizes[name]
        for start in starts:
            signs = np.sign(read_deltas(pool, name, start, min(sizes[name], start + BLOCK))[1]).astype(np.int8)
            balance, voters = signs.sum(0, dtype=np.int64), np.abs(signs).sum(0, dtype=np.int64)
            others = balance - signs
            decided += (others != 0).sum(1)
            same += ((others != 0) & (np.sign(others) == signs)).sum(1)
            without += ((np.abs(others) == members - 1) & (voters - np.abs(signs) == members - 1)).sum(1)
            seen += signs.shape[1]
    if members == 1:
        return SignCounts((math.nan,), (math.nan,))
    return SignCounts(
        tuple((same / np.maximum(1, decided)).tolist()),
        tuple((without / np.maximum(1, seen)).tolist()),
    )
