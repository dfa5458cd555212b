"""Merged weights on their way to disk: one safetensors file, or shards with an index."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from negmerge.checkpoints import SafetensorsWriter, atomic_write, hash_file, partial_path, write_bytes_atomic
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import DType, Raw
from negmerge.errors import InputError
from negmerge.merging.output.record import PLACEHOLDER

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

Layout = Sequence[tuple[str, DType, tuple[int, ...]]]


class WeightsWriter:
    """Writes pieces of tensors, in any order and from threads, to the file of each."""

    def __init__(self, files: Mapping[str, SafetensorsWriter]) -> None:
        self._files = files

    def write(self, name: str, start: int, values: Raw) -> None:
        """Write elements of the flattened tensor `name`, from element `start` on."""
        self._files[name].write(name, start, values)


@contextmanager
def weights_file(path: Path, layout: Layout, texts: Mapping[str, str], replace: bool = True) -> Iterator[WeightsWriter]:
    """Write all tensors to one file, whole or not at all; the hash of its data goes into its record at the end."""
    with atomic_write(path, replace) as file:
        writer = SafetensorsWriter(file, layout, texts)
        yield WeightsWriter({name: writer for name, _, _ in layout})
        _seal(writer, path, texts)


@contextmanager
def weights_folder(
    folder: Path, layout: Layout, texts: Mapping[str, str], most: int, stem: str = "model"
) -> Iterator[WeightsWriter]:
    """Write tensors into a folder: to STEM.safetensors or, where they exceed `most` bytes, to shards with an index."""
    whole_file = f"{stem}.safetensors"
    shards = _shards(layout, most)
    if len(shards) == 1:
        with weights_file(folder / whole_file, layout, texts) as whole:
            yield whole
        return
    files: dict[str, SafetensorsWriter] = {}
    weight_map: dict[str, str] = {}
    with ExitStack() as stack:
        opened = []
        for i, shard in enumerate(shards, 1):
            path = folder / f"{stem}-{i:05}-of-{len(shards):05}.safetensors"
            opened.append((SafetensorsWriter(stack.enter_context(atomic_write(path)), shard, texts), path))
            files.update({name: opened[-1][0] for name, _, _ in shard})
            weight_map.update({name: path.name for name, _, _ in shard})
        yield WeightsWriter(files)
        for writer, path in opened:
            _seal(writer, path, texts)
    total = sum(_bytes(entry) for entry in layout)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_bytes_atomic(folder / f"{whole_file}.index.json", (json.dumps(index, indent=2) + "\n").encode())


def parse_size(text: str) -> int:
    """Return the bytes that a size such as '5GB', '200MiB' or '1000000' means; units are decimal unless binary.

    >>> parse_size("5GB"), parse_size("1 MiB")
    (5000000000, 1048576)

    Raises InputError for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    size = int(float(found[1]) * UNITS.get(found[2].upper(), 0)) if found else 0
    if size <= 0:
        raise InputError(f"--max-shard-size {text!r} is no size; write for example 5GB or 500MiB")
    return size


def _shards(layout: Layout, most: int) -> list[list[tuple[str, DType, tuple[int, ...]]]]:
    """Fill shards in the order of the layout; a tensor larger than `most` has a shard of its own."""
    shards: list[list[tuple[str, DType, tuple[int, ...]]]] = [[]]
    size = 0
    for entry in layout:
        if shards[-1] and size + _bytes(entry) > most:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += _bytes(entry)
    return shards


def _bytes(entry: tuple[str, DType, tuple[int, ...]]) -> int:
    return elements(entry[2]) * entry[1].itemsize


def _seal(writer: SafetensorsWriter, path: Path, texts: Mapping[str, str]) -> None:
    """Put the hash of the data into the header; the data go to the disk while they are hashed."""
    if any(PLACEHOLDER in text for text in texts.values()):
        with ThreadPoolExecutor(1) as beside:
            synced = beside.submit(writer.sync)
            writer.replace_in_header(PLACEHOLDER, hash_file(partial_path(path), writer.data_start))
            synced.result()
