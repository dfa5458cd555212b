"""The pickles inside PyTorch's files, read without running any of them.

A pickle is a program for a stack machine. This one knows the instructions that plain data need and a short list of
names: those that build a tensor give a record of where its elements lie, those of plain containers a dict or a list.
For any other name, and for whatever is made with it, an inert `Unknown` stands: a trainer's settings may lie beside the
weights. So nothing of the file is imported or executed, and no size that it claims is ever allocated.

Instructions: https://docs.python.org/3/library/pickletools.html; records: torch/serialization.py.
"""

import pickletools
import warnings
from typing import Any, Protocol

from negmerge.checkpoints.torch_names import (
    Call,
    Kind,
    MalformedError,
    RefusedError,
    Storage,
    Unknown,
    are_counts,
    key_of,
    named,
    paired,
)

LIMIT = 2**25  # bytes of one pickle: some 100,000 tensors
LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
)  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
MARK = object()


class Stream(Protocol):
    """A binary file to read from."""

    def read(self, count: int, /) -> bytes:
        """Read up to `count` bytes."""
        ...

    def readline(self, limit: int, /) -> bytes:
        """Read up to `limit` bytes of a line."""
        ...


def read_pickle(stream: Stream, storages: dict[str, Storage] | None = None) -> Any:
    """Read one pickle, up to its end: dicts, lists, tuples, numbers, texts and TensorRecords, Unknown for all else.

    The root storages that it names are added to `storages`.
    Raises MalformedError for bytes that are no such pickle, and RefusedError for storages of a kind that is not read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of odd escapes in texts of the oldest protocol
            return _Machine({} if storages is None else storages).run(_Bounded(stream))
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise MalformedError(" ".join(str(error).split())[:120]) from None


class _Bounded:
    """A stream that ends after LIMIT bytes, and never reads more at once than it has left."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._left = stream, LIMIT

    def read(self, count: int) -> bytes:
        data = self._stream.read(min(count, self._left))
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        data = self._stream.readline(self._left)
        self._left -= len(data)
        return data


class _Machine:
    """The stack, the memo, and one method for each instruction that moves more than a constant."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: _Bounded) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            name = opcode.name
            if name in LITERALS:
                self._stack.append(argument)
            elif name in CONSTANTS:
                self._stack.append(CONSTANTS[name])
            elif name == "STOP":
                return self._stack.pop()
            elif name not in ("PROTO", "FRAME"):
                step = getattr(self, f"_op_{name.lower()}", None)
                if step is None:
                    raise ValueError(f"instruction {name}")
                step(argument)
        raise ValueError("no end")

    def _since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        found = self._stack[at + 1 :]
        del self._stack[at:]
        return found

    def _op_mark(self, _: Any) -> None:
        self._stack.append(MARK)

    def _op_pop(self, _: Any) -> None:
        self._stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _op_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _op_empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _op_empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _op_empty_set(self, _: Any) -> None:
        self._stack.append([])

    def _op_empty_tuple(self, _: Any) -> None:
        self._stack.append(())

    def _op_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _op_list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _op_dict(self, _: Any) -> None:
        self._stack.append(paired(self._since_mark()))

    def _op_tuple1(self, _: Any) -> None:
        self._stack[-1:] = [(self._stack[-1],)]

    def _op_tuple2(self, _: Any) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def _op_tuple3(self, _: Any) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def _op_append(self, _: Any) -> None:
        value = self._stack.pop()
        self._top(list).append(value)

    def _op_appends(self, _: Any) -> None:
        values = self._since_mark()
        self._top(list).extend(values)

    _op_additems = _op_appends

    def _op_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._top(dict)[key_of(key)] = value

    def _op_setitems(self, _: Any) -> None:
        values = self._since_mark()
        self._top(dict).update(paired(values))

    def _top(self, kind: type) -> Any:
        if isinstance(self._stack[-1], Unknown):
            return kind()  # what is put into an unknown object is dropped
        if not isinstance(self._stack[-1], kind):
            raise ValueError(f"no {kind.__name__} to fill")
        return self._stack[-1]

    def _op_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _op_binget = _op_long_binget = _op_get

    def _op_global(self, argument: str) -> None:
        self._stack.append(named(argument.replace(" ", ".")))

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._stack.append(named(f"{module:.200}.{name:.200}"))

    def _op_reduce(self, _: Any) -> None:
        arguments, call = self._stack.pop(), self._stack.pop()
        if isinstance(call, Unknown):
            self._stack.append(call)
        elif isinstance(call, Call) and isinstance(arguments, tuple):
            self._stack.append(call.run(*arguments))
        else:
            raise ValueError("a call of no function")

    _op_newobj = _op_reduce

    def _op_newobj_ex(self, _: Any) -> None:
        self._stack.pop()  # arguments by name, which no class on the list takes
        self._op_reduce(None)

    def _op_build(self, _: Any) -> None:
        self._stack.pop()  # attributes, such as the versions that Module.state_dict() leaves

    def _op_binpersid(self, _: Any) -> None:
        found = self._stack.pop()
        if isinstance(found, tuple) and len(found) == 4 and found[0] == "module" and isinstance(found[1], Unknown):
            self._stack.append(found[1])  # the class of a pickled module, with its source, in the older format
            return
        if not isinstance(found, tuple) or len(found) not in (5, 6) or found[0] != "storage":
            raise ValueError("a reference to no storage")
        _, kind, key, _, size, *view = found
        if isinstance(kind, Unknown):
            raise RefusedError(kind.what, kind.executes)
        if not isinstance(kind, Kind) or not isinstance(key, str | int) or not are_counts(size):
            raise ValueError("a reference to no storage")
        start = view[0][1] if view and view[0] is not None else 0
        if not are_counts(start):
            raise ValueError("a view of no storage")
        root = Storage(kind.dtype, str(key), size)
        if self._storages.setdefault(root.key, root) != root:
            raise ValueError("a storage described twice")
        self._stack.append(Storage(kind.dtype, root.key, size, start))
