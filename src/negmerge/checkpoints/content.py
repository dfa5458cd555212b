"""What a file is, by its first bytes: the ending of its name decides only where these say nothing."""

import os
from pathlib import Path
from typing import Literal

from negmerge.checkpoints.plain_file import open_plain
from negmerge.errors import InputError

Format = Literal["safetensors", "torch"]
HEAD = 512  # bytes that are looked at: a tar names itself at byte 257
HEADER_LIMIT = 100_000_000  # of safetensors
ZIP = b"PK\3\4"
PICKLE = b"\x80"
# The number that torch's older format begins with, as the pickles of today write it, and those of the oldest protocols.
MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
WRITTEN_OUT = b"L119547037146038801333356L"
PACKED = "; unpack it and give the file of weights that is in it"
# First bytes → what such a file is, and what to do.
SIGNATURES = {
    b"GGUF": "a GGUF file; load it with transformers' from_pretrained(gguf_file=…) and save_pretrained",
    b"\x89HDF\r\n\x1a\n": (
        "an HDF5 file of Keras or TensorFlow; load it with transformers 4 by from_pretrained(from_tf=True) and "
        "save_pretrained"
    ),
    b"\x93NUMPY": "a NumPy array; save a state dict",
    b"\x1f\x8b\x08": f"a gzip archive{PACKED}",
    b"BZh": f"a bzip2 archive{PACKED}",
    b"\xfd7zXZ\0": f"an xz archive{PACKED}",
    b"(\xb5/\xfd": f"a zstandard archive{PACKED}",
    b"7z\xbc\xaf'\x1c": f"a 7z archive{PACKED}",
    b"version https://git-lfs": "a pointer of Git LFS and not the weights; fetch them with `git lfs pull`",
    b"<!DOCTYPE": "a web page and not the weights; fetch them again",
    b"<html": "a web page and not the weights; fetch them again",
}


def recognise(file: Path, shown: Path) -> Format | None:
    """Return the format that the first bytes of a file are those of, or None where they are of none that is known.

    Raises InputError for a file that cannot be read, and for one that is of a format that is known but not read.
    """
    descriptor = open_plain(file)
    try:
        head, size = os.pread(descriptor, HEAD, 0), os.fstat(descriptor).st_size
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror} while reading; check the disk") from None
    finally:
        os.close(descriptor)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length <= min(HEADER_LIMIT, size - 8):
        return "safetensors"
    if head.startswith((ZIP, WRITTEN_OUT)) or (head.startswith(PICKLE) and MAGIC in head[:32]):
        return "torch"
    for signature, what in SIGNATURES.items():
        if head.startswith(signature):
            raise InputError(f"{shown} is {what}")
    if head[257:262] == b"ustar":
        if head.startswith(b"sys_info\0"):
            raise InputError(f"{shown} was saved by torch from before 0.2; load it with torch.load and save it again")
        raise InputError(f"{shown} is a tar archive{PACKED}")
    return None
