"""A tree hash, so that large files are hashed by several threads and parts of them can be hashed as they are read."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LEAF = 16 * 2**20


def hash_file(path: Path, start: int = 0, threads: int = 4) -> str:
    """Return `sha256-tree:` and the hash of the bytes of a file from `start` to its end, in hexadecimal.

    sha256( length as 8 bytes little-endian ‖ sha256(leaf 0) ‖ sha256(leaf 1) ‖ … ), leaves of 16 MiB.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "x"; _ = file.write_bytes(b"abc")
    >>> hash_file(file)[:20]
    'sha256-tree:80a67215'
    """
    size = max(0, path.stat().st_size - start)

    def leaf(offset: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start + offset)
            return hashlib.sha256(file.read(min(LEAF, size - offset))).digest()

    offsets = range(0, size, LEAF)
    if len(offsets) <= 1:
        leaves = [leaf(offset) for offset in offsets]
    else:
        with ThreadPoolExecutor(threads) as pool:
            leaves = list(pool.map(leaf, offsets))
    root = hashlib.sha256(size.to_bytes(8, "little") + b"".join(leaves))
    return f"sha256-tree:{root.hexdigest()}"
