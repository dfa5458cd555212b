"""What a merge did, measured while the numbers lie in the cache: the effect on OUT, and how the members agree.

Sums of products are no part of the merged bits, so their order is free: in float32 over at most 512 elements, then in
float64, in the order of the blocks.
"""

import numpy as np

from negmerge.execution.compiling import compiled

SAMPLE = 512  # elements whose products are summed in float32; in a merge the first of each block of 2^14 are looked at
ANY_ORDER = {"reassoc", "nsz", "contract"}


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


@compiled(fastmath=ANY_ORDER)
def _four_products(row, a, b, c, d):  # type: ignore[no-untyped-def]
    p, q, r, s = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for j in range(len(row)):
        p += row[j] * a[j]
        q += row[j] * b[j]
        r += row[j] * c[j]
        s += row[j] * d[j]
    return p, q, r, s


@compiled
def _differing(a, b):  # type: ignore[no-untyped-def]
    count = 0
    for j in range(len(a)):
        count += a[j] != b[j]
    return count


@compiled
def add_rounding(values, written, origin, effect):  # type: ignore[no-untyped-def]
    """Add to effect [4] what rounding to the dtype of OUT makes of a block: elements that changed, and the error.

    values: what was computed; written: what OUT holds; origin: what it would hold at α = 0. Added to effect[0] is how
    many differ, to effect[3] Σ(written − values)².
    """
    effect[0] += _differing(written, origin)
    for first in range(0, len(values), SAMPLE):
        some = slice(first, min(first + SAMPLE, len(values)))
        effect[3] += np.float64(_squared_distance(written[some], values[some]))


@compiled
def add_agreement(rows, first, n, ranged, low, high, products, counts):  # type: ignore[no-untyped-def]
    """Add what elements first … first + n of rows [1 + N, any] say of the pool; row 0 is θ₀, the others task vectors.

    products [1 + N, 1 + N], its lower half: Σ of the products of any two rows; counts [2 + N]: elements, those on
    whose sign all members agree, and the zeros of each task vector. Where the members were folded by the STRICT rule
    (`ranged`), low and high hold the range of each element, else they are scratch.
    """
    least, most = low[first : first + n], high[first : first + n]
    if not ranged:
        least[:] = np.inf
        most[:] = -np.inf
    for a in range(len(rows)):
        row = rows[a, first : first + n]
        b = 0
        while b + 4 <= a + 1:
            one, two = rows[b, first : first + n], rows[b + 1, first : first + n]
            three, four = rows[b + 2, first : first + n], rows[b + 3, first : first + n]
            p, q, r, s = _four_products(row, one, two, three, four)
            products[a, b] += np.float64(p)
            products[a, b + 1] += np.float64(q)
            products[a, b + 2] += np.float64(r)
            products[a, b + 3] += np.float64(s)
            b += 4
        for rest in range(b, a + 1):
            products[a, rest] += np.float64(_product(row, rows[rest, first : first + n]))
        if a > 0:
            counts[1 + a] += _zeros(row)
            if not ranged:
                _widen_range(row, least, most)
    counts[0] += n
    agreeing = 0
    for j in range(n):
        agreeing += (least[j] > 0) | (most[j] < 0)
    counts[1] += agreeing


@compiled
def _zeros(row):  # type: ignore[no-untyped-def]
    count = 0
    for j in range(len(row)):
        count += row[j] == 0
    return count


@compiled
def _widen_range(row, least, most):  # type: ignore[no-untyped-def]
    for j in range(len(row)):
        d = row[j]
        least[j] = d if d < least[j] else least[j]
        most[j] = d if d > most[j] else most[j]
