"""Checkpoints moved along task vectors, and vectors added up, by hand."""

import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.merging.engine import merge_vector
from negmerge.unlearning.displacing import write_displaced, write_scaled, write_sum


def written(place, **values):
    write_state_dict(place, {name: torch.as_tensor(value) for name, value in values.items()})
    return place


def test_a_displaced_checkpoint_lies_where_the_task_vectors_say(tmp_path):
    base = written(tmp_path / "base.safetensors", w=[1.0, 2.0], n=torch.tensor(3))
    a = written(tmp_path / "a.safetensors", w=[2.0, 2.0], n=torch.tensor(4))
    b = written(tmp_path / "b.safetensors", w=[1.0, 5.0], n=torch.tensor(5))
    write_displaced(tmp_path / "c.safetensors", base, [(1.0, a), (-0.5, b)])
    found = read_state_dict(tmp_path / "c.safetensors")
    assert found["w"].tolist() == [2.0, 0.5] and found["n"].item() == 3


def test_what_is_mirrored_is_added_where_it_would_be_subtracted(tmp_path):
    base = written(tmp_path / "base.safetensors", w=[[1.0, 2.0], [0.0, 0.0]])
    run = written(tmp_path / "run.safetensors", w=[[1.5, 1.0], [0.0, 4.0]])
    write_displaced(tmp_path / "m.safetensors", base, [(-1.0, run)])
    merge_vector(base, [tmp_path / "m.safetensors"], tmp_path / "v.safetensors", method="uniform")
    vector = read_state_dict(tmp_path / "v.safetensors")["w"]
    assert torch.equal(read_state_dict(base)["w"] - vector, read_state_dict(run)["w"])


def test_half_precision_is_widened_so_that_nothing_is_rounded(tmp_path):
    base = written(tmp_path / "base.safetensors", w=torch.tensor([1.0], dtype=torch.bfloat16))
    run = written(tmp_path / "run.safetensors", w=torch.tensor([1.0078125], dtype=torch.bfloat16))
    write_displaced(tmp_path / "m.safetensors", base, [(-0.25, run)])
    assert read_state_dict(tmp_path / "m.safetensors")["w"].tolist() == [1 - 0.25 * 0.0078125]


def test_vectors_are_summed_and_scaled_by_name(tmp_path):
    a, b = written(tmp_path / "a.safetensors", w=[1.0], v=[2.0]), written(tmp_path / "b.safetensors", w=[10.0])
    write_sum(tmp_path / "sum.safetensors", [(2.0, a), (0.5, b)])
    assert {k: v.item() for k, v in read_state_dict(tmp_path / "sum.safetensors").items()} == {"w": 7.0, "v": 4.0}
    write_scaled(tmp_path / "scaled.safetensors", a, {"v": 3.0})
    assert {k: v.item() for k, v in read_state_dict(tmp_path / "scaled.safetensors").items()} == {"w": 1.0, "v": 6.0}
