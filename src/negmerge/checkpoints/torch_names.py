"""The names that a pickle of PyTorch's may call, and what stands for each: records, never the thing itself.

Source: torch/_utils.py, torch/storage.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from negmerge.checkpoints.dtypes import BY_NAME, DType


class MalformedError(Exception):
    """The bytes are no pickle of PyTorch's."""


class RefusedError(Exception):
    """The pickle asks for something that is no plain tensor; the message names it."""

    def __init__(self, what: str, executes: bool = False) -> None:
        super().__init__(what)
        self.executes = executes


@dataclass(frozen=True)
class Storage:
    """Elements in the file, under a key; `dtype` None means bytes. A view starts at element `start` of its root."""

    dtype: DType | None
    key: str
    size: int
    start: int = 0


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as the file describes it; offset and strides in elements."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Kind:
    """The type of a storage."""

    dtype: DType | None


@dataclass(frozen=True)
class Call:
    """A function of this module, standing for the one that the pickle names."""

    run: Callable[..., Any]


def paired(values: list[Any]) -> dict[Any, Any]:
    """Return the dict of a row of keys and values in turn. Raises ValueError for an odd one."""
    if len(values) % 2:
        raise ValueError("a key without a value")
    return {key_of(key): value for key, value in zip(values[::2], values[1::2], strict=True)}


def key_of(value: Any) -> Any:
    """Return what can be looked up; of a nested key only that it was there: its hash may take forever."""
    return value if value is None or isinstance(value, str | int | float | bytes) else object()


def are_counts(*values: Any) -> bool:
    """Whether all are whole numbers that a size can be."""
    return all(type(value) is int and 0 <= value < 2**62 for value in values)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorRecord:
    return _tensor_of(storage, offset, shape, stride, None)


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> TensorRecord:
    return _tensor_of(storage, offset, shape, stride, dtype)


def _tensor_of(storage: Any, offset: Any, shape: Any, stride: Any, dtype: Any) -> TensorRecord:
    fine = isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(stride, tuple)
    if not fine or not are_counts(offset, *shape, *stride) or len(shape) != len(stride) or len(shape) > 64:
        raise ValueError("a tensor without place or shape")
    found = dtype if isinstance(dtype, DType) else storage.dtype
    if found is None:
        raise ValueError("a tensor without dtype")
    return TensorRecord(storage, found, offset, shape, stride)


def _first(value: Any, *_: Any) -> Any:
    return value


def _of_type(build: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    if not isinstance(build, Call) or kind is not PLAIN_TYPE or not isinstance(arguments, tuple):
        raise RefusedError("tensors of a class of their own")
    return build.run(*arguments)


def _mapping(content: Any = (), *_: Any) -> dict[Any, Any]:
    if isinstance(content, dict):
        return content  # not a copy: a short pickle can call for millions of them
    pairs = content if isinstance(content, list) else []
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise ValueError("a dict of no pairs")
    return {key_of(key): value for key, value in pairs}


def _size(sizes: Any = (), *_: Any) -> tuple[Any, ...]:
    return tuple(sizes[:64])


def _nothing(*_: Any) -> None:
    return None


TYPES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")
HARMLESS = ("set", "complex", "list", "dict", "int", "float", "bytearray")
STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}  # fmt: skip
PLAIN_TYPE = Call(_nothing)
NAMES: dict[str, Any] = {
    **{f"torch.{name}": dtype for name, dtype in BY_NAME.items()},
    **{f"torch.{name}Storage": Kind(BY_NAME[dtype]) for name, dtype in STORAGES.items()},
    **{name: Kind(None) for name in ("torch.storage.UntypedStorage", "torch.UntypedStorage")},
    **dict.fromkeys(TYPES, PLAIN_TYPE),
    **{f"torch._utils._rebuild_tensor{version}": Call(_tensor) for version in ("", "_v2")},
    "torch._utils._rebuild_tensor_v3": Call(_typed_tensor),
    **{f"torch._utils._rebuild_parameter{more}": Call(_first) for more in ("", "_with_state")},
    "torch._tensor._rebuild_from_type_v2": Call(_of_type),
    **{f"collections.{name}": Call(_mapping) for name in ("OrderedDict", "Counter", "defaultdict")},
    "torch.Size": Call(_size),
    "torch.device": Call(_nothing),
    "_codecs.encode": Call(_nothing),  # bytes, in the older protocols
    **{f"{home}.{name}": Call(_nothing) for home in ("builtins", "__builtin__") for name in HARMLESS},
}  # fmt: skip


def named(name: str) -> Any:
    """Return what stands for a name. Raises RefusedError for one that is not on the list."""
    found = NAMES.get(name)
    return found if found is not None else _refuse(name)


def _refuse(name: str) -> NoReturn:
    if "_rebuild_q" in name or name.startswith("torch.Q"):
        raise RefusedError(f"quantised tensors ({name:.80})")
    if name.startswith("torch._utils._rebuild_"):
        raise RefusedError(f"tensors of another layout ({name:.80})")
    raise RefusedError(f"more than tensors ({name:.80})", executes=True)
