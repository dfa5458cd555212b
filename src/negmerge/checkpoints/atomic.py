"""Files that appear whole or not at all."""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from negmerge.errors import InputError, NegmergeError

# What a disk answers when it is full, or has turned read-only or bad, and what a name that has become a folder gives.
WHILE_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EISDIR, errno.ENOTEMPTY)


BEGIN_WRITING = 2  # SYNC_FILE_RANGE_WRITE of sync_file_range(2)


def _found_sync_file_range() -> Any:
    """Return sync_file_range of the C library, which Linux has."""
    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return found


_sync_file_range = _found_sync_file_range()


class NotWrittenError(NegmergeError):
    """The disk refused what was to be written to a path, for a reason in its own words."""

    def __init__(self, path: Path, reason: str | None) -> None:
        super().__init__(f"{path} cannot be written: {reason}; free some space or choose another place")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type, tuple[Path, str | None]]:  # a worker's error reaches its parent by pickle
        return type(self), (self.path, self.reason)


@contextmanager
def atomic_write(path: Path, replace: bool = True) -> Iterator[BinaryIO]:
    """Give a binary file to write and read; when the block ends without an error, it becomes `path`.

    The file is `.NAME.partial` beside the target, locked while in use, synced, then renamed over the target. After
    an error it is removed; one left behind by a killed process is taken over. Raises NegmergeError where another
    process is writing the same target, or the place cannot be written, and, without `replace`, InputError where the
    target exists by then.
    """
    partial = partial_path(path)
    with _open_locked(partial, path) as file:
        try:
            _check_absent(path, replace)
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(file.fileno())
            _check_absent(path, replace)
            partial.replace(path)
        except BaseException as error:  # removed while still locked: nobody else's file is taken away
            partial.unlink(missing_ok=True)
            raise write_error(error, path) from None
    sync_folder(path.parent)


def write_error(error: BaseException, path: Path) -> BaseException:
    """Return the error itself or, for one that the disk raised while `path` was written, a line that says so.

    The error of a file in a folder that is not yet whole becomes that of the folder, which is what was asked for.
    """
    if isinstance(error, NotWrittenError):
        return NotWrittenError(path, error.reason)
    if isinstance(error, OSError) and error.errno in WHILE_WRITING:
        return NotWrittenError(path, error.strerror)
    return error


def is_same(path: Path, descriptor: int) -> bool:
    """Whether a path still leads to what was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def partial_path(path: Path) -> Path:
    """Return where the target `path` is written before it is whole."""
    return path.with_name(f".{path.name}.partial")


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all."""
    with atomic_write(path) as file:
        file.write(data)


def begin_write_back(descriptor: int) -> None:
    """Have the disk begin to write what was written to a file, without waiting; without effect off Linux."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, BEGIN_WRITING)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_absent(path: Path, replace: bool) -> None:
    if not replace and os.path.lexists(path):
        raise InputError(f"{path} exists by now: another process wrote it; choose another OUT")


def _open_locked(partial: Path, path: Path) -> BinaryIO:
    while True:
        try:
            file = os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")
        except OSError as error:
            raise NegmergeError(
                f"{path} cannot be written: {error.strerror}; choose a folder that exists and is yours"
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise NegmergeError(f"{path} is being written by another process; wait for it to end") from None
        # Between opening and locking, the file may have been renamed to its target by the one who held it.
        if is_same(partial, file.fileno()):
            return file
        file.close()
