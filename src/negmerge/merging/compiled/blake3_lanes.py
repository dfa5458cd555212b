"""BLAKE3 in LLVM's vectors: one block of 64 bytes of each of LANES inputs is compressed at a time.

The package `blake3` is as quick, but is called from Python: a merge hashes tens of thousands of pieces, and each call
takes and gives the interpreter's lock. This one is part of the compiled loops, and hashes what these have in the cache.

Source: BLAKE3, https://github.com/BLAKE3-team/BLAKE3-specs (section 2; the order of words of table 2)
"""

from typing import Any

import numpy as np

from negmerge.execution.compiling import AVAILABLE

LANES = 16  # inputs at a time; a lane is a 32-bit element of a vector
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)  # of a block's words, from each round to the next
ROUNDS = 7
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
# The chaining values that every input begins with, [8, LANES]: word by word.
INITIAL = np.repeat(np.array(IV, np.uint32)[:, None], LANES, axis=1)

compress: Any = None
if AVAILABLE:
    from llvmlite import binding, ir
    from numba import types
    from numba.extending import intrinsic

    if not binding.get_host_cpu_features().get("avx512f"):
        LANES = 8
        INITIAL = INITIAL[:, :LANES].copy()
    WORD, ADDRESS = ir.IntType(32), ir.IntType(64)
    VECTOR = ir.VectorType(WORD, LANES)

    def _constant(values: Any) -> Any:
        return ir.Constant(VECTOR, [values] * LANES if isinstance(values, int) else list(values))

    def _spread(builder: Any, value: Any) -> Any:
        """Return a vector that has a 64-bit number's lower half in every lane."""
        one = builder.insert_element(_constant(0), builder.trunc(value, WORD), ir.Constant(WORD, 0))
        return builder.shuffle_vector(one, one, _constant(0))

    def _rotated(builder: Any, value: Any, bits: int) -> Any:
        return builder.or_(builder.lshr(value, _constant(bits)), builder.shl(value, _constant(32 - bits)))

    def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
        """Return the columns of LANES vectors: blocks of 1, 2, 4, … elements change places across the diagonal."""
        step = 1
        while step < LANES:
            low = _constant(j if not j & step else j - step + LANES for j in range(LANES))
            high = _constant(j + step if not j & step else j + LANES for j in range(LANES))
            for i in (i for i in range(LANES) if not i & step):
                a, b = rows[i], rows[i + step]
                rows[i], rows[i + step] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
            step *= 2
        return rows

    def _mix(builder: Any, v: list[Any], places: tuple[int, int, int, int], words: Any) -> None:
        """The quarter round of BLAKE3 on four of the state's words, with two of the block's."""
        a, b, c, d = places
        for word, first, second in zip(words, (16, 8), (12, 7), strict=True):
            v[a] = builder.add(builder.add(v[a], v[b]), word)
            v[d] = _rotated(builder, builder.xor(v[d], v[a]), first)
            v[c] = builder.add(v[c], v[d])
            v[b] = _rotated(builder, builder.xor(v[b], v[c]), second)

    def _write_compression(
        builder: Any, state: Any, block: Any, stride: Any, count: Any, step: Any, size: Any, flags: Any
    ) -> None:
        """Write the code of `compress`."""

        def at(address: Any, offset: Any) -> Any:
            return builder.inttoptr(builder.add(address, offset), VECTOR.as_pointer())

        def number(value: int) -> Any:
            return ir.Constant(ADDRESS, value)

        places = [at(state, number(4 * LANES * i)) for i in range(8)]
        words = []
        for part in range(0, 64, 4 * LANES):
            offsets = [builder.add(builder.mul(stride, number(lane)), number(part)) for lane in range(LANES)]
            words += _transposed(builder, [builder.load(at(block, offset), align=1) for offset in offsets])
        counts = builder.mul(_spread(builder, step), _constant(range(LANES)))
        v = [builder.load(place, align=4) for place in places]
        v += [*map(_constant, IV[:4]), builder.add(counts, _spread(builder, count)), _constant(0)]
        v += [_spread(builder, size), _spread(builder, flags)]
        for _ in range(ROUNDS):
            for i in range(4):
                _mix(builder, v, (i, 4 + i, 8 + i, 12 + i), words[2 * i : 2 * i + 2])
            for i in range(4):
                diagonal = (i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
                _mix(builder, v, diagonal, words[8 + 2 * i : 10 + 2 * i])
            words = [words[i] for i in ORDER]
        for i, place in enumerate(places):
            builder.store(builder.xor(v[i], v[i + 8]), place, align=4)

    @intrinsic
    def _compress(  # type: ignore[no-untyped-def]
        typing_context: Any, state, block, stride, count, step, size, flags
    ):
        """Compress a block of every lane into its chaining value.

        state: where the chaining values are, [8, LANES]; block: where lane 0 has its 64 bytes, each further lane
        `stride` behind; lane i counts as input count + i · step; size: bytes of the block that are part of the input.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(ir.VoidType(), [ADDRESS] * len(arguments))
            function = ir.Function(builder.module, kind, "negmerge_blake3_compress")
            function.linkage = "internal"
            function.attributes.add("noinline")  # a thousand vector instructions, which compile for seconds
            own = ir.IRBuilder(function.append_basic_block())
            _write_compression(own, *function.args)
            own.ret_void()
            builder.call(function, arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 3, *[types.int64] * 4), generate

    compress = _compress
