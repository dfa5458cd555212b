"""Element types of stored tensors and their conversions, in numpy: merging plain files must not wait for torch.

Elements are held in the numpy dtype `stored`; bfloat16, which numpy lacks, as the 16 bits of each element (uint16).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Raw = np.ndarray[Any, Any]  # elements as they are stored


@dataclass(frozen=True, eq=False)  # each exists once: compared and hashed by identity
class DType:
    """An element type: torch's name for it, safetensors' code, and the numpy dtype that holds its elements."""

    name: str
    code: str
    stored: np.dtype[Any]
    itemsize: int  # bytes of one element; a field, since a merge asks for it once for each tensor of each file
    is_floating_point: bool = False

    @property
    def torch(self) -> "torch.dtype":
        """The same type in torch, which is imported for it."""
        import torch

        found: torch.dtype = getattr(torch, self.name)
        return found

    def __str__(self) -> str:
        return self.name


def _dtype(name: str, code: str, stored: str, floating: bool = False) -> DType:
    return DType(name, code, np.dtype(stored), np.dtype(stored).itemsize, floating)


FLOAT64 = _dtype("float64", "F64", "<f8", True)
FLOAT32 = _dtype("float32", "F32", "<f4", True)
FLOAT16 = _dtype("float16", "F16", "<f2", True)
BFLOAT16 = _dtype("bfloat16", "BF16", "<u2", True)
BY_CODE = {
    dtype.code: dtype
    for dtype in (
        FLOAT64,
        FLOAT32,
        FLOAT16,
        BFLOAT16,
        _dtype("int64", "I64", "<i8"),
        _dtype("int32", "I32", "<i4"),
        _dtype("int16", "I16", "<i2"),
        _dtype("int8", "I8", "i1"),
        _dtype("uint64", "U64", "<u8"),
        _dtype("uint32", "U32", "<u4"),
        _dtype("uint16", "U16", "<u2"),
        _dtype("uint8", "U8", "u1"),
        _dtype("bool", "BOOL", "u1"),
        _dtype("complex64", "C64", "<c8"),
    )
}
# Types of torch that are told apart to be refused by name; none of them is read.
UNREAD = tuple(
    [_dtype(f"float8_{kind}", f"F8_{kind.upper().removesuffix('FN')}", "u1", True) for kind in ("e4m3fn", "e5m2")]
    + [_dtype(f"float8_{kind}", f"F8_{kind.upper()}", "u1", True) for kind in ("e4m3fnuz", "e5m2fnuz", "e8m0fnu")]
    + [_dtype("float4_e2m1fn_x2", "F4_E2M1FN_X2", "u1", True)]
    + [_dtype("complex32", "C32", "<u4"), _dtype("complex128", "C128", "<c16")]
    + [_dtype(name, name.upper(), "u1") for name in ("quint8", "qint8", "quint4x2", "quint2x4")]
    + [_dtype("qint32", "QINT32", "<i4")]
)
BY_NAME = {dtype.name: dtype for dtype in (*BY_CODE.values(), *UNREAD)}


def of_torch(dtype: "torch.dtype") -> DType:
    """Return the element type that torch names so. Raises KeyError for one that no file holds."""
    return BY_NAME[str(dtype).removeprefix("torch.")]


def exact(dtype: DType) -> DType:
    """Return the type in which floats of `dtype` are subtracted, merged and applied: float32, float64 for float64."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


def to_floats(values: Raw, dtype: DType) -> np.ndarray[Any, np.dtype[np.floating[Any]]]:
    """Return stored floats as float32 (float64 where they are float64); exact.

    >>> to_floats(np.array([0x3F80, 0xC000], np.uint16), BFLOAT16)
    array([ 1., -2.], dtype=float32)
    """
    if dtype == BFLOAT16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(exact(dtype).stored, copy=False)


def from_floats(values: Raw, dtype: DType) -> Raw:
    """Return float32 or float64 numbers as stored floats of `dtype`, rounded to the nearest, ties to even.

    float64 goes to a half type by way of float32, as in torch. Numbers beyond the range become infinite; NaN stays NaN.

    >>> from_floats(np.array([1.0, -2.0], np.float32), BFLOAT16).tolist() == [0x3F80, 0xC000]
    True
    """
    with np.errstate(over="ignore"):
        if dtype in (FLOAT32, FLOAT64):
            return values.astype(dtype.stored, copy=False)
        narrow = values.astype(np.float32, copy=False)
        if dtype == FLOAT16:
            return narrow.astype(np.float16)
    bits = narrow.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return np.where(np.isnan(narrow), np.uint32(0x7FC0), rounded).astype(np.uint16)


def convert(values: Raw, dtype: DType, target: DType) -> Raw:
    """Return stored floats of `dtype` as stored floats of `target`; the same array where both are one type."""
    return values if dtype == target else from_floats(to_floats(values, dtype), target)


def is_finite(values: Raw, dtype: DType) -> bool:
    """Whether no stored element is NaN or infinite; integers and booleans never are."""
    if dtype == BFLOAT16:
        return not bool(((values & np.uint16(0x7F80)) == np.uint16(0x7F80)).any())
    return not (dtype.is_floating_point or dtype.code == "C64") or bool(np.isfinite(values).all())
