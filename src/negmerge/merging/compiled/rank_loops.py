"""The compiled loops of the first passes: count the digits of magnitudes, or select in tensors that fit a buffer."""

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.reading import FINE, NOT_FINITE, UNREADABLE, load, subtract

INFINITE = np.uint32(0x7F800000)  # bits of a magnitude from here on are Inf and NaN
MAGNITUDE = np.uint32(0x7FFFFFFF)


@compiled
def _count(bits, known, high, low, mask, counts):  # type: ignore[no-untyped-def]
    bad = False
    for j in range(len(bits)):
        size = bits[j] & MAGNITUDE
        bad |= size >= INFINITE
        if high == np.uint32(31) or (size >> high) == known:
            counts[(size >> low) & mask] += np.int32(1)
    return bad


@compiled
def count_digits(places, kinds, start, length, known, high, low, floats, raw, counts):  # type: ignore[no-untyped-def]
    """Count one digit of the magnitudes of a piece of every task vector, and return the state.

    The digit has the bits from `low` up to `high`; counted are those whose bits from `high` on are known[i, query].
    Checkpoint 0 is the base. places: [1 + N, 2], kinds: [1 + N]; known: [N, queries]; counts: int32 [N, queries,
    2^(high − low)], added to; floats [2, block] and raw [block] are scratch.
    """
    mask = np.uint32((1 << (high - low)) - 1)
    block = floats.shape[1]
    for first in range(0, length, block):
        n = min(block, length - first)
        base, member = floats[0, :n], floats[1, :n]
        if not load(places[0, 0], places[0, 1], kinds[0], start + first, raw, base):
            return UNREADABLE
        for i in range(1, len(kinds)):
            if not load(places[i, 0], places[i, 1], kinds[i], start + first, raw, member):
                return UNREADABLE
            subtract(base, member)
            bits = member.view(np.uint32)
            for q in range(known.shape[1]):
                if _count(bits, np.uint32(known[i - 1, q]), np.uint32(high), np.uint32(low), mask, counts[i - 1, q]):
                    return NOT_FINITE
    return FINE


@compiled
def _select(values, at):  # type: ignore[no-untyped-def]
    """Return what sorting would put at place `at`, by Hoare's selection; numpy's own compiles for five seconds."""
    low, high = 0, len(values) - 1
    while low < high:
        a, b, c = values[low], values[(low + high) // 2], values[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if at <= j:
            high = j
        elif at >= i:
            low = i
        else:
            break
    return values[at]


@compiled
def select_whole(places, kinds, lengths, ranks, base, member, raw, found):  # type: ignore[no-untyped-def]
    """Find the magnitudes at ranks of whole tensors that fit the scratch, and return the state of each.

    places: [tensors, 1 + N, 2], kinds: [tensors, 1 + N]; lengths: [tensors]; ranks: [tensors, R], 1 is the largest;
    found: float32 [tensors, N, R]; base, member (float32) and raw (uint16) are scratch as long as the longest tensor.
    """
    states = np.zeros(len(lengths), np.uint8)
    for t in range(len(lengths)):
        n = lengths[t]
        origin, values = base[:n], member[:n]
        if not load(places[t, 0, 0], places[t, 0, 1], kinds[t, 0], 0, raw, origin):
            states[t] = UNREADABLE
            continue
        for i in range(1, kinds.shape[1]):
            if not load(places[t, i, 0], places[t, i, 1], kinds[t, i], 0, raw, values):
                states[t] = UNREADABLE
                break
            bad = False
            for j in range(n):
                values[j] = abs(values[j] - origin[j])
                bad |= not values[j] < np.inf
            if bad:
                states[t] = NOT_FINITE
                break
            for r in range(ranks.shape[1]):
                found[t, i - 1, r] = _select(values, n - ranks[t, r])
    return states
