"""The contract of every registered merge method."""

import pytest
import torch

from negmerge import registry
from negmerge.merging.streaming import Merger

NAMES = registry.names("methods", "negmerge.merging.methods")
ONE_MEMBER = {"task-arithmetic"}
SEVERAL = [name for name in NAMES if name not in ONE_MEMBER]


def deltas(members, count=1000, dtype=torch.float32):
    values = torch.randn(members, count, generator=torch.Generator().manual_seed(1)).to(dtype)
    values[:, ::7] = values[:, ::7].abs()
    values[0, ::11] = 0.0
    return values


def members_of(name):
    return 1 if name in ONE_MEMBER else 5


def test_the_methods_are_there():
    assert {"consensus", "uniform", "task-arithmetic"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept_and_the_input_unchanged(name, dtype):
    given = deltas(members_of(name), dtype=dtype)
    before = given.clone()
    merged, kept = Merger(name, {}).merge(given)
    assert merged.shape == (1000,) and merged.dtype == dtype and torch.isfinite(merged).all()
    assert torch.equal(given, before)
    assert 0 < kept <= 1000


@pytest.mark.parametrize("name", NAMES)
def test_chunks_make_the_whole(name):
    given = deltas(members_of(name))
    merger = Merger(name, {})
    whole, count = merger.merge(given)
    parts = [merger.merge(part.contiguous()) for part in given.split(77, dim=1)]
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)
    assert sum(kept for _, kept in parts) == count


@pytest.mark.parametrize("name", NAMES)
def test_one_member_is_returned_as_it_is(name):
    given = deltas(1)
    assert torch.equal(Merger(name, {}).merge(given)[0], given[0])


@pytest.mark.parametrize("name", SEVERAL)
def test_the_order_of_the_pool_changes_rounding_at_most(name):
    given = deltas(5)
    merger = Merger(name, {})
    torch.testing.assert_close(merger.merge(given)[0], merger.merge(given.flip(0))[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SEVERAL)
def test_zeros_merge_to_zeros(name):
    assert not Merger(name, {}).merge(torch.zeros(3, 8))[0].any()


@pytest.mark.parametrize("name", SEVERAL)
def test_negating_all_members_negates_the_result(name):
    given = deltas(4)
    merger = Merger(name, {})
    assert torch.equal(merger.merge(-given)[0], -merger.merge(given)[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_what_it_is(name):
    module = registry.load("methods", name)
    assert "\n" not in module.SUMMARY and len(module.SUMMARY) < 120
    assert "arXiv" in module.REFERENCE and module.REACH in ("element", "statistics")
    assert ">>>" in module.merge.__doc__
