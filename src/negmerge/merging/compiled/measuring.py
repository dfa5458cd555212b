"""What a merge did, measured while the numbers lie in the cache: the effect on OUT, and how the members agree.

Sums of products are no part of the merged bits, so their order is free: in float32 over at most 512 elements, then in
float64, in the order of the blocks.
"""

import numpy as np

from negmerge.execution.compiling import compiled

SAMPLE = 512  # elements at the beginning of each block of 2^14 whose products are measured in a merge
EFFECTS = 5  # numbers that say the effect of a piece: those of add_effect, and of add_octaves
ANY_ORDER = {"reassoc", "nsz", "contract"}


@compiled(fastmath=ANY_ORDER)
def _squares(values):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for j in range(len(values)):
        total += values[j] * values[j]
    return total


@compiled(fastmath=ANY_ORDER)
def _squared_distance(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for j in range(len(a)):
        d = a[j] - b[j]
        total += d * d
    return total


@compiled(fastmath=ANY_ORDER)
def _product(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for j in range(len(a)):
        total += a[j] * b[j]
    return total


@compiled
def _differing(a, b):  # type: ignore[no-untyped-def]
    count = 0
    for j in range(len(a)):
        count += a[j] != b[j]
    return count


@compiled
def add_effect(base, delta, values, written, origin, effect):  # type: ignore[no-untyped-def]
    """Add to effect [0 … 3]: how many elements of OUT changed, Σδ², Σθ₀², Σ(written − values)²."""
    effect[0] += _differing(written, origin)
    for first in range(0, len(base), SAMPLE):
        some = slice(first, min(first + SAMPLE, len(base)))
        effect[1] += np.float64(_squares(delta[some]))
        effect[2] += np.float64(_squares(base[some]))
        effect[3] += np.float64(_squared_distance(written[some], values[some]))


@compiled
def add_octaves(delta, origin, scratch, effect):  # type: ignore[no-untyped-def]
    """Add to effect [4] Σ 4^⌊log₂|θ|⌋ over the elements of OUT before the merge whose δ is not 0."""
    bits, powers = origin.view(np.uint32), scratch.view(np.uint32)
    for j in range(len(delta)):  # a float without its sign and its fraction is the power of two
        powers[j] = bits[j] & np.uint32(0x7F800000) if delta[j] != 0 else np.uint32(0)
    for first in range(0, len(delta), SAMPLE):
        effect[4] += np.float64(_squares(scratch[first : min(first + SAMPLE, len(delta))]))


@compiled
def add_agreement(rows, low, high, products, counts):  # type: ignore[no-untyped-def]
    """Add what elements [1 + N, n ≤ SAMPLE] say of the pool; row 0 is θ₀, the others are the task vectors.

    products [1 + N, 1 + N], its lower half: Σ of the products of any two rows; counts [2 + N]: elements, those on
    whose sign all members agree, and the zeros of each task vector. low and high are scratch.
    """
    n = rows.shape[1]
    least, most = low[:n], high[:n]
    least[:] = np.inf
    most[:] = -np.inf
    for a in range(len(rows)):
        for b in range(a + 1):
            products[a, b] += np.float64(_product(rows[a], rows[b]))
        if a == 0:
            continue
        zeros = 0
        for j in range(n):
            d = rows[a, j]
            zeros += d == 0
            least[j] = d if d < least[j] else least[j]
            most[j] = d if d > most[j] else most[j]
        counts[1 + a] += zeros
    counts[0] += n
    agreeing = 0
    for j in range(n):
        agreeing += (least[j] > 0) | (most[j] < 0)
    counts[1] += agreeing
