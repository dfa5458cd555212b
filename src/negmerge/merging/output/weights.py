"""Merged weights on their way to disk: one safetensors file, or shards with an index."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from negmerge.checkpoints import SafetensorsWriter, atomic_write
from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import DType, Raw
from negmerge.errors import InputError

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

Layout = Sequence[tuple[str, DType, tuple[int, ...]]]


@dataclass(frozen=True)
class FilePlan:
    """A file of weights to write: its path, and its tensors in the order in which they lie there."""

    path: Path
    layout: Layout

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        return sum(_bytes(entry) for entry in self.layout)


class WeightsWriter:
    """Writes pieces of tensors, in any order and from threads, to the file of each."""

    def __init__(self, files: Mapping[str, SafetensorsWriter]) -> None:
        self._files = files

    def write(self, name: str, start: int, values: Raw, digests: Raw | None = None) -> None:
        """Write elements of the flattened tensor `name` as they are stored, from element `start` on.

        `digests`, [pieces, 32], are those of their pieces of the hash, if they are known.
        """
        self._files[name].write(name, start, values, digests)


@contextmanager
def written_weights(
    files: Sequence[FilePlan],
    texts: Mapping[str, str],
    seal: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None,
    replace: bool = True,
) -> Iterator[WeightsWriter]:
    """Write files of weights, each with the metadata `texts`, and each whole or not at all.

    At the end `seal` is given the tree hash of the tensors of each file, by file name, and says what stands in the
    headers for texts that hold places: hashes cannot be known before.
    """
    with ExitStack() as stack:
        opened = {}
        of: dict[str, SafetensorsWriter] = {}
        for plan in files:
            file = stack.enter_context(atomic_write(plan.path, replace))
            opened[plan.path.name] = writer = SafetensorsWriter(file, plan.layout, texts, hashed=seal is not None)
            of.update(dict.fromkeys((name for name, _, _ in plan.layout), writer))
        yield WeightsWriter(of)
        if seal is not None:
            sealed = seal({name: writer.data_hash() for name, writer in opened.items()})
            for writer in opened.values():
                writer.replace_in_header(sealed)


def plan_shards(folder: Path, layout: Layout, most: int, stem: str = "model") -> list[FilePlan]:
    """Return the files of a folder: STEM.safetensors or, where tensors exceed `most` bytes, shards in their order.

    A tensor larger than `most` has a shard of its own.
    """
    shards: list[list[tuple[str, DType, tuple[int, ...]]]] = [[]]
    size = 0
    for entry in layout:
        if shards[-1] and size + _bytes(entry) > most:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += _bytes(entry)
    if len(shards) == 1:
        return [FilePlan(folder / f"{stem}.safetensors", layout)]
    names = (f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, 1 + len(shards)))
    return [FilePlan(folder / name, shard) for name, shard in zip(names, shards, strict=True)]


def index_of(files: Sequence[FilePlan]) -> bytes:
    """Return the index (model.safetensors.index.json) of shards."""
    weight_map = {name: plan.path.name for plan in files for name, _, _ in plan.layout}
    index = {"metadata": {"total_size": sum(plan.bytes for plan in files)}, "weight_map": weight_map}
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()


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


def _bytes(entry: tuple[str, DType, tuple[int, ...]]) -> int:
    return elements(entry[2]) * entry[1].itemsize
