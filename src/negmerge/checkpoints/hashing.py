"""A tree hash, so that large files are hashed by several threads and parts of them can be hashed as they are read."""

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from negmerge.errors import InputError

LEAF = 16 * 2**20
PIECE = 2**20  # bytes read at a time, into a buffer that each thread uses again


def hash_file(path: Path, start: int = 0, threads: int = 4) -> str:
    """Return `sha256-tree:` and the hash of the bytes of a file from `start` to its end, in hexadecimal.

    sha256( length as 8 bytes little-endian ‖ sha256(leaf 0) ‖ sha256(leaf 1) ‖ … ), leaves of 16 MiB.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "x"; _ = file.write_bytes(b"abc")
    >>> hash_file(file)[:20]
    'sha256-tree:80a67215'
    """
    size = max(0, path.stat().st_size - start)
    scratch = threading.local()
    descriptor = os.open(path, os.O_RDONLY)

    def leaf(offset: int) -> bytes:
        if not hasattr(scratch, "buffer"):
            scratch.buffer = memoryview(bytearray(min(size, PIECE)))
        digest = hashlib.sha256()
        at, end = start + offset, start + min(size, offset + LEAF)
        while at < end:
            count = os.preadv(descriptor, [scratch.buffer[: end - at]], at)
            if not count:
                raise InputError(f"{path} became shorter while it was hashed; try again when nothing writes to it")
            digest.update(scratch.buffer[:count])
            at += count
        return digest.digest()

    try:
        with ThreadPoolExecutor(threads) as pool:
            leaves = list(pool.map(leaf, range(0, size, LEAF)))
    finally:
        os.close(descriptor)
    return tree_of(size, leaves)


def tree_of(size: int, leaves: Sequence[bytes]) -> str:
    """Return the tree hash of `size` bytes whose leaves have these SHA-256 digests."""
    root = hashlib.sha256(size.to_bytes(8, "little") + b"".join(leaves))
    return f"sha256-tree:{root.hexdigest()}"
