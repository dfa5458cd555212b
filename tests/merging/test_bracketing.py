"""k-th magnitudes found in one read: those of counting digits, whatever the numbers, and whatever the sample says."""

import numpy as np
import pytest
import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.merging.engine import merge_vector

pytestmark = pytest.mark.skipif(not compiling.AVAILABLE, reason="needs numba")

SHAPES = {"wide": (300_017,), "tied": (280_000,), "sorted": (270_000,), "small": (100,)}


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bracketing")
    g = torch.Generator().manual_seed(0)
    paths = [folder / f"{i}.safetensors" for i in range(3)]
    for i, path in enumerate(paths):
        state = {name: torch.randn(shape, generator=g) * 10.0**i for name, shape in SHAPES.items()}
        state["tied"] = torch.zeros(280_000) if i == 0 else state["tied"].round()
        state["sorted"] = state["sorted"].sort().values
        write_state_dict(path, state)
    return paths


@pytest.mark.parametrize("method", ["ties", "breadcrumbs"])
@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("width", [5.0, 0.0])  # with 0 the k-th is often missed: then digits are counted
def test_one_read_gives_what_digits_give(pool, tmp_path, monkeypatch, method, scope, width):
    from negmerge.merging.compiled import bracketing, fused_ranks

    monkeypatch.setattr(bracketing, "WIDTH", width)
    settled = []
    original = bracketing.RankSearch.settle
    monkeypatch.setattr(bracketing.RankSearch, "settle", lambda self, v: (settled.append(v), original(self, v)))
    options = {"method": method, "settings": {"scope": scope}}
    merge_vector(pool[0], pool[1:], tmp_path / "a.safetensors", workers=3, **options)
    assert bool(settled) or width == 0
    monkeypatch.setattr(fused_ranks, "fits", lambda search: False)
    merge_vector(pool[0], pool[1:], tmp_path / "b.safetensors", **options)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_found(pool, tmp_path, value):
    state = read_state_dict(pool[1])
    state["wide"][150_001] = value
    write_state_dict(tmp_path / "bad.safetensors", state)
    with pytest.raises(InputError, match=r"bad.safetensors: tensor wide holds NaN or Inf"):
        merge_vector(pool[0], [tmp_path / "bad.safetensors", pool[2]], tmp_path / "o", method="ties")


def test_the_sample_says_where_the_ranks_are():
    from negmerge.merging.compiled.bracketing import bounds_of

    values = np.abs(np.random.default_rng(0).standard_normal((2, 200_000))).astype(np.float32)
    ranks = (1, 1000, 40_000, 200_000)
    low, high = bounds_of(values[:, ::10], ranks, values.shape[1])
    exact = -np.sort(-values)[:, [rank - 1 for rank in ranks]]
    assert (low <= exact).all() and (exact <= high).all()
    between = [np.mean((values >= low[:, r : r + 1]) & (values <= high[:, r : r + 1])) for r in range(len(ranks))]
    assert max(between) < 0.05
