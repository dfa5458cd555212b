"""Signs, masks, sums and served weights, each against a case made by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from negmerge.checkpoints import open_checkpoint, read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.exact import sift_masks
from negmerge.exact.sift_masks import Sift, crossed, read_mask, sign_is_plus, write_served, write_sum, write_vector


class Ten(nn.Module):
    """Ten numbers, and three that are not trained."""

    def __init__(self, values):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))
        self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)


BASE = {"w": torch.arange(10.0), "fixed": torch.ones(3)}
STEPS = ([0, 1, 0, -2, 0, 0, 0, 0, 0, 4.0], [0, 0, 0, -1, 0, 0.5, 0, 0, 0, 1.0])


@pytest.fixture
def made(tmp_path):
    """The base in a file, and two vectors."""
    write_state_dict(tmp_path / "base.safetensors", BASE)
    files = []
    for i, step in enumerate(STEPS):
        files.append(tmp_path / f"{i}.safetensors")
        assert write_vector(files[-1], BASE, Ten([j + s for j, s in enumerate(step)])) == {"elements": 10, "kept": 3}
    return tmp_path / "base.safetensors", files


def summed(base, files, target):
    opened = open_checkpoint(base)
    write_sum(target, opened, files)
    opened.close()
    return target


def test_signs_are_drawn_once_for_every_place():
    whole = sign_is_plus(7, "w", 0, 100_000)
    assert abs(whole.mean() - 0.5) < 0.01
    for start in (0, 1, 8, 99_990):
        assert (sign_is_plus(7, "w", start, 10) == whole[start : start + 10]).all()
    for other in (sign_is_plus(8, "w", 0, 100_000), sign_is_plus(7, "u", 0, 100_000)):
        assert abs((other == whole).mean() - 0.5) < 0.01


def test_what_crosses_over_goes_back_to_the_base():
    model = Ten(BASE["w"].tolist())
    sift = Sift(model, 7)
    plus = torch.from_numpy(sign_is_plus(7, "w", 0, 10))
    assert 0 < plus.sum() < 10
    with torch.no_grad():
        model.w += 0.25
        model.fixed += 1
    sift(model)
    assert torch.equal(model.w.detach(), torch.where(plus, BASE["w"] + 0.25, BASE["w"]))
    with torch.no_grad():
        model.w -= 0.5
    sift(model)
    assert torch.equal(model.w.detach(), torch.where(plus, BASE["w"], BASE["w"] - 0.5))
    assert model.fixed.tolist() == [2, 2, 2]  # not trained, so not held


def test_a_mask_is_bits_and_values_are_what_is_not_zero(made):
    _, files = made
    stored = read_state_dict(files[0])
    assert stored["w.mask"].dtype == torch.uint8 and stored["w.mask"].tolist() == [0b01010000, 0b01000000]
    assert stored["w.values"].tolist() == [1, -2, 4] and set(stored) == {"w.mask", "w.values"}
    vector = open_checkpoint(files[0])
    assert read_mask(vector, "w", 8, 10).tolist() == [False, True]
    vector.close()


@pytest.mark.parametrize("chunk", [8, 2**20])
def test_sum_and_served_weights(made, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(sift_masks, "CHUNK", chunk)
    base, files = made
    total = summed(base, files, tmp_path / "sum.safetensors")
    assert read_state_dict(total)["w"].tolist() == [0, 1, 0, -3, 0, 0.5, 0, 0, 0, 5]
    write_served(tmp_path / "own.safetensors", base, total, 2, files[0])
    served = read_state_dict(tmp_path / "own.safetensors")
    assert served["w"].tolist() == [0, 1.5, 2, 1.5, 4, 5, 6, 7, 8, 11.5] and served["fixed"].tolist() == [1, 1, 1]
    write_served(tmp_path / "all.safetensors", base, total, 2, None)
    assert read_state_dict(tmp_path / "all.safetensors")["w"].tolist() == [0, 1.5, 2, 1.5, 4, 5.25, 6, 7, 8, 11.5]


def test_nobody_there_is_the_base(made, tmp_path):
    base, _ = made
    total = summed(base, [], tmp_path / "sum.safetensors")
    write_served(tmp_path / "all.safetensors", base, total, 0, None)
    assert (tmp_path / "all.safetensors").read_bytes() == base.read_bytes()


def test_a_sum_anew_has_the_bits_that_a_difference_has_not(tmp_path):
    """A thousand numbers of many magnitudes: taking one vector away again leaves rounding behind, summing does not."""
    base = {"w": torch.zeros(1000)}
    write_state_dict(tmp_path / "base.safetensors", base)
    files, vectors = [], []
    for i in range(5):
        draw = np.random.default_rng(i)
        values = draw.standard_normal(1000) * 10.0 ** draw.integers(-6, 6, 1000)
        vectors.append(torch.tensor(values, dtype=torch.float32))
        files.append(tmp_path / f"{i}.safetensors")
        model = nn.Module()
        model.w = nn.Parameter(vectors[-1])
        write_vector(files[-1], base, model)
    place = tmp_path / "base.safetensors"
    never = read_state_dict(summed(place, files[1:], tmp_path / "a.safetensors"))["w"]
    anew = read_state_dict(summed(place, files[1:], tmp_path / "b.safetensors"))["w"]
    whole = read_state_dict(summed(place, files, tmp_path / "c.safetensors"))["w"]
    assert torch.equal(anew, never) and not torch.equal(whole - vectors[0], never)
    torch.testing.assert_close(never, torch.stack(vectors[1:]).double().sum(0).float())


def test_elements_on_the_other_side_are_counted(tmp_path):
    plus = torch.from_numpy(sign_is_plus(3, "w", 0, 10))
    step = torch.where(plus, 1.0, -1.0)
    step[4] = -step[4]
    write_vector(tmp_path / "v.safetensors", BASE, Ten((BASE["w"] + step).tolist()))
    assert crossed(tmp_path / "v.safetensors", 3) == 1


def test_vectors_of_other_bases_are_refused(made, tmp_path):
    base, files = made
    other = nn.Module()
    other.u = nn.Parameter(torch.ones(10))
    write_vector(tmp_path / "u.safetensors", {"u": torch.zeros(10)}, other)
    with pytest.raises(InputError, match="has other tensors than"):
        summed(base, [*files, tmp_path / "u.safetensors"], tmp_path / "sum.safetensors")
