"""Bytes of files, or of memory, as float32: what every compiled loop begins with."""

from typing import Any

import numpy as np

from negmerge.execution.compiling import AVAILABLE, compiled

if AVAILABLE:
    from numba import types

BLOCK = 2**14  # elements: nine float32 blocks of this length fit the second-level cache
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
FINE, UNREADABLE, NOT_FINITE = 0, 1, 2

if AVAILABLE:
    _pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.intp, types.intp, types.int64))
    _memcpy: Any = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.intp))


@compiled
def _fetch(descriptor, offset, address, count):  # type: ignore[no-untyped-def]
    # Bytes of an open file, or (descriptor −1) of this process's memory at address `offset`, to `address`.
    if descriptor < 0:
        _memcpy(address, offset, count)
        return True
    done = 0
    while done < count:
        got = _pread(np.int32(descriptor), address + done, count - done, offset + done)
        if got <= 0:
            return False
        done += got
    return True


@compiled
def load(descriptor, offset, kind, first, raw, values):  # type: ignore[no-untyped-def]
    """Read elements of one checkpoint, from element `first` on, as float32 into `values`; False where they end."""
    count = len(values)
    if kind == FLOAT32:
        return _fetch(descriptor, offset + 4 * first, values.ctypes.data, 4 * count)
    if not _fetch(descriptor, offset + 2 * first, raw.ctypes.data, 2 * count):
        return False
    bits = values.view(np.uint32)
    if kind == BFLOAT16:
        for j in range(count):
            bits[j] = np.uint32(raw[j]) << np.uint32(16)
        return True
    scale = np.float32(2.0**112)  # moves the exponent of a half to that of a float; exact, denormals included
    for j in range(count):
        half = np.uint32(raw[j])
        bits[j] = (half & np.uint32(0x7FFF)) << np.uint32(13)
        values[j] *= scale
        if (half & np.uint32(0x7C00)) == np.uint32(0x7C00):
            values[j] = np.inf
        bits[j] |= (half & np.uint32(0x8000)) << np.uint32(16)
    return True


@compiled
def fetch_pieces(descriptors, offsets, counts, addresses):  # type: ignore[no-untyped-def]
    """Read the bytes of pieces [pieces, 1 + N] to addresses of memory; False where a file ends before.

    descriptors, offsets, counts, addresses: [pieces, 1 + N], in bytes.
    """
    for p in range(len(descriptors)):
        for i in range(descriptors.shape[1]):
            if not _fetch(descriptors[p, i], offsets[p, i], addresses[p, i], counts[p, i]):
                return False
    return True
