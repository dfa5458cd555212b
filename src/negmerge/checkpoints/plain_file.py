"""The bytes of a file, by position: what the lazy formats stand on."""

import errno
import os
import stat
from pathlib import Path

from negmerge.errors import InputError

CONFIG_LIMIT = 10_000_000  # bytes of a config.json that are believed


def open_plain(path: Path) -> int:
    """Return a descriptor to read a file from.

    Raises InputError for one that is not there, may not be read, or is none: a pipe would wait for ever.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise InputError(f"{path}: {error.strerror}; allow more (ulimit -n), or merge fewer files") from None
        raise InputError(f"{path}: {error.strerror}; give a checkpoint that exists and can be read") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path} is not a regular file; give a checkpoint that is one")
    return descriptor


def read_into(descriptor: int, buffer: memoryview, offset: int, what: str) -> None:
    """Fill a buffer from a place in the file; `what` names it in messages.

    Raises InputError where the file ends before, or cannot be read.
    """
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], offset + done)
        except OSError as error:
            raise InputError(f"{what}: {error.strerror} while reading; check the disk") from None
        if count == 0:
            raise InputError(f"{what}: the file ended inside it; it changed while it was read")
        done += count


def read_small(path: Path, most: int) -> bytes:
    """Return the bytes of a small file, such as a config.

    Raises InputError where it cannot be read or is larger than `most`.
    """
    descriptor = open_plain(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > most:
            raise InputError(f"{path} has {size:,} bytes, at most {most:,} are believed; is it the right file?")
        data = bytearray(size)
        read_into(descriptor, memoryview(data), 0, str(path))
        return bytes(data)
    finally:
        os.close(descriptor)
