"""The header of a safetensors file: read at C speed where all is well, and entry by entry where something is wrong.

A header is a JSON object name → {dtype, shape, data_offsets}; `__metadata__` is a map of texts.
https://huggingface.co/docs/safetensors
"""

import json
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import from_json

from negmerge.checkpoints.base import UNNAMEABLE, elements, is_name
from negmerge.checkpoints.dtypes import BY_CODE, DType
from negmerge.checkpoints.foreign import may_be_quantised, refuse_quantised
from negmerge.errors import InputError

METADATA = "__metadata__"
KEYS = ("dtype", "shape", "data_offsets")

Entries = dict[str, tuple[DType, tuple[int, ...], int]]  # dtype, shape, and the first byte in the file


def broken(path: Path, what: str) -> InputError:
    """Return the error of a file that is no whole safetensors file."""
    return InputError(f"{path} is not a whole safetensors file: {what}; fetch or write it again")


def read_header(text: bytes, start: int, size: int, path: Path) -> tuple[Mapping[str, str], Entries]:
    """Return the metadata and the entries of a header whose data lie from byte `start` of a file of `size` bytes on.

    Raises InputError for a header that is not the JSON of the format, names something twice, has an unknown dtype, or
    offsets that overlap, leave gaps, do not fit the shape or leave the file; and for quantised weights.
    """
    header = _parsed(text, path)
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise broken(path, "its __metadata__ is not a map of texts")
    if len(max(header, key=len, default="")) > 1000 or UNNAMEABLE.search("".join(header)):
        odd = next(name for name in header if not is_name(name))
        raise broken(path, f"no tensor can be named {odd!r:.80}")
    entries = _entries_at_once(header, start, size - start)
    if entries is not None:
        codes: set[str] = {dtype.code for dtype in {dtype for dtype, _, _ in entries.values()}}
    else:
        codes = {e["dtype"] for e in header.values() if isinstance(e, dict) and isinstance(e.get("dtype"), str)}
    if may_be_quantised(codes):
        refuse_quantised({name: e.get("dtype") for name, e in header.items() if isinstance(e, dict)}, path)
    return metadata, _entries_one_by_one(header, start, size - start, path) if entries is None else entries


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    try:
        header = from_json(text)
    except ValueError:
        header = None
    # Of a key that stands twice this parser keeps the last without a word: then the texts of the keys are more.
    if not isinstance(header, dict) or any(text.count(f'"{key}"'.encode()) != _entries(header) for key in KEYS):

        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            found = dict(pairs)
            if len(found) < len(pairs):
                raise broken(path, "its header names a tensor twice")
            return found

        try:
            header = json.loads(text.decode(), object_pairs_hook=unique)
        except (ValueError, RecursionError):
            raise broken(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise broken(path, "its header is not a JSON object")
    return header


def _entries(header: Mapping[str, Any]) -> int:
    return len(header) - (METADATA in header)


def _entries_at_once(header: Mapping[str, Any], start: int, size: int) -> Entries | None:
    """Return the entries of a header that is right in every respect, or None."""
    try:
        codes = [entry["dtype"] for entry in header.values()]
        shapes = [entry["shape"] for entry in header.values()]
        offsets = [entry["data_offsets"] for entry in header.values()]
        dtypes = [BY_CODE[code] for code in codes]
        numbers = [*chain.from_iterable(shapes), *chain.from_iterable(offsets)]
        if not header:
            return {} if size == 0 else None
        if set(map(len, header.values())) != {3} or set(map(type, numbers)) != {int} or min(numbers) < 0:
            return None
        if set(map(type, chain(shapes, offsets))) != {list} or max(map(len, shapes)) > 64:
            return None
        places = np.array(offsets, np.int64)
        bytes_of = np.array([math.prod(s) for s in shapes], np.int64) * np.array([d.itemsize for d in dtypes], np.int64)
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError):
        return None
    if places.shape != (len(header), 2):
        return None
    begins, ends = places.T
    order = np.lexsort((ends, begins))
    fits = (ends - begins == bytes_of).all() and begins[order[0]] == 0 and ends[order[-1]] == size
    if not fits or not (begins[order[1:]] == ends[order[:-1]]).all():
        return None
    places_in_file = (begins + start).tolist()
    return dict(zip(header, zip(dtypes, map(tuple, shapes), places_in_file, strict=True), strict=True))


def _entries_one_by_one(header: Mapping[str, Any], start: int, size: int, path: Path) -> Entries:
    """Return the entries of a header. Raises InputError that names the first tensor that is wrong."""
    entries = {}
    spans = []
    for name, entry in header.items():
        dtype, shape, begin, end = _entry(name, entry, path)
        if not 0 <= begin <= end <= size:
            raise broken(path, f"tensor {name} lies at bytes {begin}:{end} of {size}")
        if end - begin != elements(shape) * dtype.itemsize:
            raise broken(path, f"tensor {name} has {end - begin} bytes for shape {list(shape)} of {dtype}")
        entries[name] = (dtype, shape, start + begin)
        spans.append((begin, end, name))
    spans.sort()
    at = 0
    for begin, end, name in spans:
        if begin != at:
            raise broken(path, f"tensor {name} starts at byte {begin}, expected {at} (overlap or gap)")
        at = end
    if at != size:
        raise broken(path, f"{size - at} bytes after the last tensor belong to none")
    return entries


def _entry(name: str, entry: Any, path: Path) -> tuple[DType, tuple[int, ...], int, int]:
    def is_count(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**62

    if not isinstance(entry, dict) or set(entry) != set(KEYS):
        raise broken(path, f"the entry of tensor {name} is not dtype, shape and data_offsets")
    code, shape, offsets = (entry[key] for key in KEYS)
    if not isinstance(code, str):
        raise broken(path, f"the dtype of tensor {name} is not a text")
    if code not in BY_CODE:
        raise InputError(
            f"{path}: tensor {name} has dtype {code:.20}, which is not supported; there are {', '.join(BY_CODE)}"
        )
    if not isinstance(shape, list) or not all(map(is_count, shape)) or len(shape) > 64:
        raise broken(path, f"the shape of tensor {name} is not a list of counts")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
        raise broken(path, f"the data_offsets of tensor {name} are not two counts")
    return BY_CODE[code], tuple(shape), offsets[0], offsets[1]
