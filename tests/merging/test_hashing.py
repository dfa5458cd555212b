"""Hashes that the compiled loops take: those of the package blake3, of every input, with no byte read twice."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from blake3 import blake3
from safetensors import safe_open

from negmerge.checkpoints import pieces, write_state_dict
from negmerge.checkpoints.pieces import ELEMENTS, hash_pieces
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.execution import compiling
from negmerge.merging.engine import merge_checkpoints

pytestmark = pytest.mark.skipif(not compiling.AVAILABLE, reason="needs numba")


def test_the_loop_gives_the_hash_of_the_package():
    from negmerge.merging.compiled.hashing import LONGEST, HashScratch, hash_piece

    scratch, digest = HashScratch.new(), np.empty(32, np.uint8)
    data = np.random.default_rng(0).integers(0, 256, LONGEST, dtype=np.uint8)
    # Around a block, a chunk, a vector of chunks; odd numbers of chunks; the longest piece.
    around = [n + d for n in (64, 1024, 2048, 8192, 16384, 17408, 40000, 131072) for d in (-1, 0, 1)]
    for size in (0, 1, *around, LONGEST - 1, LONGEST):
        hash_piece(data[:size], scratch, digest)
        assert digest.tobytes() == blake3(data[:size].tobytes()).digest(), size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_and_output_are_hashed_on_the_way(tmp_path, monkeypatch, dtype):
    shapes = {"long": (3 * ELEMENTS + 5,), "whole": (2, ELEMENTS), "small": (7, 11), "one": (1,)}
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    g = torch.Generator().manual_seed(0)
    for path in paths:
        state = {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}
        write_state_dict(path, {**state, "steps": torch.arange(3)})
    expected = [hash_pieces(path, spans(path)) for path in paths]
    again = []
    original = pieces.read_into
    monkeypatch.setattr(
        pieces, "read_into", lambda *arguments: (again.append(len(arguments[1])), original(*arguments))[1]
    )
    merge_checkpoints(paths[0], paths[1:], tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        record = json.loads(file.metadata()["negmerge"])
    assert [record["base"]["hash"], *(member["hash"] for member in record["members"])] == expected
    assert sum(again) < 4 * 1000  # the headers, and the three integers of each member
    opened = SafetensorsFile(tmp_path / "out.safetensors")
    data = hash_pieces(tmp_path / "out.safetensors", spans(tmp_path / "out.safetensors"), opened.data_start)
    opened.close()
    assert data in json.dumps(record)


def spans(path):
    opened = SafetensorsFile(path)
    found = opened.opened()[0].tensors
    opened.close()
    return found


GUARDED = """
import ctypes, mmap
import numpy as np
from blake3 import blake3
from negmerge.merging.compiled.hashing import HashScratch, hash_piece

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
PAGE = mmap.PAGESIZE

def guarded(like):
    # The same array, with its last byte before a page that nobody may read.
    pages = -(-like.nbytes // PAGE)
    start = libc.mmap(None, (pages + 1) * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert libc.mprotect(ctypes.c_void_p(start + pages * PAGE), PAGE, 0) == 0
    place = start + pages * PAGE - like.nbytes
    raw = np.frombuffer((ctypes.c_uint8 * like.nbytes).from_address(place), np.uint8)
    return raw.view(like.dtype).reshape(like.shape)

scratch = HashScratch(*map(guarded, HashScratch.new()))
digest = np.empty(32, np.uint8)
for size in [0, 1, 64, 1023, 1024, 1025, 5000, 15 * 1024, 15 * 1024 + 1, 16 * 1024 - 1, 16 * 1024, 17409, 262143]:
    data = guarded(np.empty(max(1, size), np.uint8))[:size]
    data[:] = np.arange(size) % 251
    hash_piece(data, scratch, digest)
    assert digest.tobytes() == blake3(data.tobytes()).digest(), size
print("read nothing beyond")
"""


def test_nothing_is_read_beyond_the_data_and_the_scratch():
    found = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0 and found.stdout == "read nothing beyond\n", found.stderr[-2000:]
