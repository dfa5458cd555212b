"""Bytes of files, or of memory, as float32: what every compiled loop begins with."""

from typing import Any

import numpy as np

from negmerge.execution.compiling import AVAILABLE, compiled

if AVAILABLE:
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

BLOCK = 2**14  # elements: nine float32 blocks of this length fit the second-level cache
# Elements between the end of a block and the next one in memory. Blocks that begin a power of two apart, as many as a
# merge reads at once, would all want the same few places of the first-level cache.
GAP = 272
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
FINE, UNREADABLE, NOT_FINITE = 0, 1, 2
FETCHED = -2  # in the place of an open file: bytes that were read before

if AVAILABLE:
    _pread: Any = types.ExternalFunction("pread", types.intp(types.int32, types.intp, types.intp, types.int64))
    _memcpy: Any = types.ExternalFunction("memcpy", types.intp(types.intp, types.intp, types.intp))


wide: Any = None
if AVAILABLE:

    @intrinsic
    def _wide(typing_context: Any, value: Any) -> Any:
        """Return a float32 as it is, and the bits of a bfloat16 (uint16) as the float32 that they stand for."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if signature.args[0] == types.float32:
                return arguments[0]
            bits = builder.zext(arguments[0], ir.IntType(32))
            return builder.bitcast(builder.shl(bits, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

        return types.float32(value), generate

    wide = _wide


@compiled
def fetch(descriptor, offset, address, count):  # type: ignore[no-untyped-def]
    """Copy bytes of an open file, or (descriptor −1) of this process's memory at address `offset`, to `address`."""
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
def read_raw(descriptor, offset, first, out):  # type: ignore[no-untyped-def]
    """Read elements of one checkpoint, from element `first` on, as they are stored; False where they end."""
    width = out.itemsize
    return fetch(descriptor, offset + width * first, out.ctypes.data, width * len(out))


@compiled
def widen(kind, raw, values):  # type: ignore[no-untyped-def]
    """Turn the bits of bfloat16 or float16 (uint16) into float32."""
    bits = values.view(np.uint32)
    if kind == BFLOAT16:
        for j in range(len(raw)):
            bits[j] = np.uint32(raw[j]) << np.uint32(16)
        return
    scale = np.float32(2.0**112)  # moves the exponent of a half to that of a float; exact, denormals included
    for j in range(len(raw)):
        half = np.uint32(raw[j])
        bits[j] = (half & np.uint32(0x7FFF)) << np.uint32(13)
        values[j] *= scale
        if (half & np.uint32(0x7C00)) == np.uint32(0x7C00):
            values[j] = np.inf
        bits[j] |= (half & np.uint32(0x8000)) << np.uint32(16)


@compiled
def load(descriptor, offset, kind, first, raw, values):  # type: ignore[no-untyped-def]
    """Read elements of one checkpoint, from element `first` on, as float32 into `values`; False where they end."""
    if kind == FLOAT32:
        return read_raw(descriptor, offset, first, values)
    if not read_raw(descriptor, offset, first, raw[: len(values)]):
        return False
    widen(kind, raw[: len(values)], values)
    return True


@compiled
def subtract(base, member):  # type: ignore[no-untyped-def]
    """Turn a member's elements into those of its task vector."""
    for j in range(len(base)):
        member[j] -= base[j]
