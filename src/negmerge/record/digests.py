"""SHA-256 and tree hash of a file, both from one reading of it."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from negmerge.checkpoints.hashing import LEAF, PIECE, tree_of
from negmerge.errors import InputError

THREADS = 4


@dataclass(frozen=True)
class Digests:
    """Bytes, SHA-256 (hexadecimal, as sha256sum prints it) and `sha256-tree:` hash of a file."""

    bytes: int
    sha256: str
    tree: str


def digests_of(path: Path, length: int | None = None) -> Digests:
    """Return the digests of a file, or of its first `length` bytes.

    Raises InputError for a file that is shorter, or becomes so while it is read.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "x"; _ = file.write_bytes(b"abc")
    >>> digests_of(file).sha256[:12]
    'ba7816bf8f01'
    """
    with path.open("rb", buffering=0) as file:
        size = path.stat().st_size if length is None else length
        buffer = memoryview(bytearray(max(1, min(size, PIECE))))
        whole, leaves, done = hashlib.sha256(), [], 0
        while done < size:
            leaf, end = hashlib.sha256(), min(size, done + LEAF)
            while done < end:
                count = file.readinto(buffer[: end - done])
                if not count:
                    raise InputError(f"{path} became shorter while it was hashed; try again when nothing writes to it")
                if size > LEAF:
                    whole.update(buffer[:count])
                leaf.update(buffer[:count])
                done += count
            leaves.append(leaf.digest())
    # A file of one leaf has its hash already.
    sha256 = leaves[0].hex() if size <= LEAF and leaves else whole.hexdigest()
    return Digests(size, sha256, tree_of(size, leaves))


def digests_of_all(paths: Iterable[Path]) -> list[Digests]:
    """Return the digests of files, in their order, read by several threads."""
    files = list(paths)
    if len(files) < 2:
        return [digests_of(file) for file in files]
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(digests_of, files))
