"""The two formats of torch.save: what their pickles say, and where the bytes of each storage lie.

Since torch 1.6 a file is a zip archive: `data.pkl` describes the tensors, `data/KEY` are plain bytes. Before, it was
a row of five pickles (magic number, version, machine, content, keys), then each storage behind its count of elements.
Source: torch/serialization.py.
"""

import io
import os
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

from negmerge.checkpoints.torch_names import MalformedError, RefusedError, Storage, Unknown
from negmerge.checkpoints.torch_pickle import LIMIT, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
LOCAL_HEADER = b"PK\3\4"

Find = Callable[[Storage], tuple[int, int]]


def describe(descriptor: int) -> tuple[Any, Find]:
    """Return what the pickle of a file says, and a function from a storage to its place: first byte, bytes.

    Raises MalformedError for a file that is not whole, and RefusedError for one that holds more than plain tensors.
    """
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        zipped = file.read(4) == LOCAL_HEADER
        file.seek(0)
        return _zipped(file) if zipped else _in_a_row(file)


def _zipped(file: BinaryIO) -> tuple[Any, Find]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except Exception:  # zipfile lets through whatever the bytes of a damaged archive lead to
        raise MalformedError("its archive cannot be read") from None
    places = {entry.filename: _place(file, entry) for entry in entries}
    roots = [name.removesuffix("data.pkl") for name in places if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(places) < len(entries) or len(roots) != 1:
        raise MalformedError("its archive has no data.pkl, or names a part twice")
    root = roots[0]
    if f"{root}constants.pkl" in places:
        raise RefusedError("a TorchScript program", executes=True)

    def content(name: str) -> bytes:
        start, count = places[root + name]
        if count > LIMIT:
            raise MalformedError(f"its {name} has {count:,} bytes")
        return os.pread(file.fileno(), count, start)

    if f"{root}byteorder" in places and content("byteorder") != b"little":
        raise RefusedError("numbers in another byte order")
    loaded = read_pickle(io.BytesIO(content("data.pkl")))

    def find(storage: Storage) -> tuple[int, int]:
        place = places.get(f"{root}data/{storage.key}")
        if place is None:
            raise MalformedError(f"its part data/{storage.key} is missing")
        return place

    return loaded, find


def _place(file: BinaryIO, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Return where the bytes of an entry lie and how many they are, from its own header in the file."""
    at = entry.header_offset
    head = os.pread(file.fileno(), 30, at) if 0 <= at < 2**62 else b""
    if len(head) < 30 or not head.startswith(LOCAL_HEADER):
        raise MalformedError(f"its part {entry.filename} has no header")
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
        raise MalformedError(f"its part {entry.filename} is compressed or encrypted")
    begin = at + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if begin + entry.file_size > os.fstat(file.fileno()).st_size:
        raise MalformedError(f"its part {entry.filename} goes beyond the end of the file")
    return begin, entry.file_size


def _in_a_row(file: BinaryIO) -> tuple[Any, Find]:
    first = read_pickle(file)
    if isinstance(first, Unknown):
        raise RefusedError(first.what, first.executes)
    if first != MAGIC or read_pickle(file) != VERSION:
        raise MalformedError("it does not begin like one")
    machine = read_pickle(file)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise RefusedError("numbers in another byte order")
    storages: dict[str, Storage] = {}
    loaded = read_pickle(file, storages)
    keys = read_pickle(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise MalformedError("it lists no storages")
    places: dict[str, tuple[int, int]] = {}
    at, size = file.tell(), os.fstat(file.fileno()).st_size
    for key in keys:
        raw = os.pread(file.fileno(), 8, at)
        storage = storages.get(key)
        if storage is None or key in places or int.from_bytes(raw, "little") != storage.size:
            raise MalformedError(f"its storage {key} is not the one described")
        count = storage.size * (storage.dtype.itemsize if storage.dtype else 1)
        if at + 8 + count > size:
            raise MalformedError(f"its storage {key} goes beyond the end of the file")
        places[key] = (at + 8, count)
        at += 8 + count

    def find(storage: Storage) -> tuple[int, int]:
        if storage.key not in places:
            raise MalformedError(f"its storage {storage.key} is missing")
        return places[storage.key]

    return loaded, find
