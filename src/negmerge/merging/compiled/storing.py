"""From the merged vector to the elements of OUT: θ₀ ∓ α·τ in float32, rounded once to the dtype of OUT."""

import numpy as np

from negmerge.execution.compiling import compiled
from negmerge.merging.compiled.measuring import SAMPLE
from negmerge.merging.compiled.reading import BFLOAT16

DELTA, SUBTRACT, ADD = 0, 1, 2


@compiled(fastmath={"reassoc"})
def _subtract(base, delta, alpha, values):  # type: ignore[no-untyped-def]
    # The flag lets the two sums run in any order; no other operation here is a chain of sums.
    bad, changed = 0, 0
    squares, origin = np.float32(0), np.float32(0)
    for j in range(len(base)):
        step = delta[j] * alpha
        value = base[j] - step
        values[j] = value
        bad += not (abs(value) < np.inf)
        changed += value != base[j]
        squares += delta[j] * delta[j]
        origin += base[j] * base[j]
    return bad, changed, squares, origin


@compiled
def apply(base, delta, operation, alpha, values, effect):  # type: ignore[no-untyped-def]
    """Set values to δ, θ₀ − α·δ or θ₀ + α·δ, and return how many of them are not finite.

    To effect [4] is added, but for δ: how many elements changed in float32, Σδ², Σθ₀².
    """
    if operation == DELTA:
        values[:] = delta
        return 0
    signed = -alpha if operation == ADD else alpha  # θ₀ − (−α)·δ has the bits of θ₀ + α·δ
    bad = 0
    for first in range(0, len(base), SAMPLE):
        some = slice(first, min(first + SAMPLE, len(base)))
        wrong, changed, squares, origin = _subtract(base[some], delta[some], signed, values[some])
        bad += wrong
        effect[0] += changed
        effect[1] += np.float64(squares)
        effect[2] += np.float64(origin)
    return bad


@compiled
def round_to(kind, values, out, back):  # type: ignore[no-untyped-def]
    """Round finite float32 numbers to a half type (out: uint16) and back (float32), and return how many overflow."""
    if kind == BFLOAT16:
        return _round_to_bfloat16(values, out, back)
    return _round_to_float16(values, out, back)


@compiled
def _round_to_bfloat16(values, out, back):  # type: ignore[no-untyped-def]
    bits, wide = values.view(np.uint32), back.view(np.uint32)
    bad = 0
    for j in range(len(values)):
        half = (bits[j] + (np.uint32(0x7FFF) + ((bits[j] >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
        out[j] = np.uint16(half)
        wide[j] = half << np.uint32(16)
        bad += (half & np.uint32(0x7F80)) == np.uint32(0x7F80)
    return bad


@compiled
def _round_to_float16(values, out, back):  # type: ignore[no-untyped-def]
    bits, wide = values.view(np.uint32), back.view(np.uint32)
    half = np.float32(0.5)
    for j in range(len(values)):
        back[j] = abs(values[j]) + half  # rounds what will be subnormal at the last bit of a subnormal half
    bad = 0
    for j in range(len(values)):
        size = bits[j] & np.uint32(0x7FFFFFFF)
        # The exponent's bias is 15, not 127: (15 − 127)·2²³ modulo 2³². Halfway goes to the even neighbour.
        usual = (size + (np.uint32(0xC8000FFF) + ((size >> np.uint32(13)) & np.uint32(1)))) >> np.uint32(13)
        tiny = wide[j] - np.uint32(0x3F000000)
        rounded = tiny if size < np.uint32(0x38800000) else usual
        bad += (size >= np.uint32(0x47800000)) | (rounded >= np.uint32(0x7C00))
        out[j] = np.uint16(rounded | ((bits[j] >> np.uint32(16)) & np.uint32(0x8000)))
    scale = np.float32(2.0**112)  # moves the exponent of a half to that of a float; exact, denormals included
    for j in range(len(values)):
        kept = np.uint32(out[j])
        wide[j] = (kept & np.uint32(0x7FFF)) << np.uint32(13)
        back[j] *= scale
        wide[j] |= (kept & np.uint32(0x8000)) << np.uint32(16)
    return bad


@compiled
def write(kind, base_kind, base, values, out, written, origin):  # type: ignore[no-untyped-def]
    """Put finite float32 numbers into OUT (uint16), rounded to a half type; return how many overflow.

    written: what OUT holds, as float32; origin: what OUT would hold at α = 0.
    """
    if kind == base_kind:
        origin[:] = base
    else:
        round_to(kind, base, out, origin)
    return round_to(kind, values, out, written)
