"""Hashes that the compiled loops take: those of the package blake3, of every input, with no byte read twice."""

import json

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
