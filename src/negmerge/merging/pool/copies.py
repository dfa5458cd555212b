"""Inputs that are copies of each other: looked for in a few bytes of each file, compared whole where these agree."""

import os
from collections.abc import Sequence
from pathlib import Path

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.adapter import Adapter
from negmerge.checkpoints.plain_file import open_plain
from negmerge.errors import InputError

SAMPLES, SAMPLE = 16, 2**12  # places of a file, evenly spread, and the bytes that are looked at there
PIECE = 2**20

Files = tuple[Path, ...]


def refuse_copies(checkpoints: Sequence[Checkpoint | Adapter]) -> None:
    """Raise InputError where two checkpoints have the same bytes: a copy of the base, a member that counts double."""
    seen: dict[tuple[bytes, ...], list[Checkpoint | Adapter]] = {}
    for checkpoint in checkpoints:
        alike = seen.setdefault(tuple(map(_sample, checkpoint.files)), [])
        for earlier in alike:
            if all(_same(a, b) for a, b in zip(earlier.files, checkpoint.files, strict=True)):
                raise InputError(f"{checkpoint.path} has the same content as {earlier.path}; leave one of them out")
        alike.append(checkpoint)


def _sample(file: Path) -> bytes:
    descriptor = open_plain(file)
    try:
        size = os.fstat(descriptor).st_size
        places = range(0, size, max(SAMPLE, size // SAMPLES))
        return size.to_bytes(8, "little") + b"".join(os.pread(descriptor, SAMPLE, at) for at in places)
    finally:
        os.close(descriptor)


def _same(a: Path, b: Path) -> bool:
    with a.open("rb") as first, b.open("rb") as second:
        while part := first.read(PIECE):
            if part != second.read(PIECE):
                return False
        return not second.read(1)
