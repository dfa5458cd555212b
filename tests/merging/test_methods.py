"""The contract of every registered merge method."""

import pytest
import torch

from negmerge import registry
from negmerge.merging.merger import Merger
from negmerge.merging.methods import Place
from negmerge.merging.methods._trimming import kth_magnitudes

NAMES = registry.names("methods", "negmerge.merging.methods")
ONE_MEMBER = {"task-arithmetic"}
SEVERAL = [name for name in NAMES if name not in ONE_MEMBER]
MODULES = {name: registry.load("methods", name) for name in NAMES}
RANDOM = [name for name in NAMES if getattr(MODULES[name], "RANDOM", False)]
TRIMMING = [name for name in NAMES if hasattr(MODULES[name], "ranks")]
DRAWS_FOR_MEMBERS = {"dare"}


def deltas(members, count=1000, dtype=torch.float32):
    values = torch.randn(members, count, generator=torch.Generator().manual_seed(1)).to(dtype)
    values[:, ::7] = values[:, ::7].abs()
    values[0, ::11] = 0.0
    return values


def members_of(name):
    return 1 if name in ONE_MEMBER else 5


def statistic_of(merger, given):
    """What a first pass over the whole would find, computed at once."""
    module = merger.statistics
    if module is None:
        return None
    if hasattr(module, "ranks"):
        return kth_magnitudes(given, module.ranks(given.shape[1], **merger.at("")))
    return torch.tensor(module.count(given, **merger.at("")) / given.shape[1], dtype=torch.float64)


def test_the_methods_are_there():
    assert set(NAMES) == {
        "breadcrumbs", "chance-intersection", "consensus", "dare", "magmax", "magnitude-consensus", "majority-sign",
        "random-mask", "shuffled-signs", "task-arithmetic", "ties", "uniform",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept_and_the_input_unchanged(name, dtype):
    given = deltas(members_of(name), dtype=dtype)
    before = given.clone()
    merged, kept = Merger(name, {}).merge(given)
    assert merged.shape == (1000,) and merged.dtype == dtype and torch.isfinite(merged).all()
    assert torch.equal(given, before)
    assert 0 < kept <= 1000
    assert kept >= torch.count_nonzero(merged)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [77, 999])
def test_chunks_make_the_whole(name, size):
    given = deltas(members_of(name))
    merger = Merger(name, {}, seed=3 if name in RANDOM else 0)
    whole, count = merger.merge(given, place=Place("w"))
    statistic = statistic_of(merger, given)
    parts = [
        merger.merge(part.contiguous(), place=Place("w", i * size), statistic=statistic)
        for i, part in enumerate(given.split(size, dim=1))
    ]
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)
    assert sum(kept for _, kept in parts) == count


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*RANDOM, *TRIMMING)])
def test_one_member_is_returned_as_it_is(name):
    given = deltas(1)
    assert torch.equal(Merger(name, {}).merge(given)[0], given[0])


@pytest.mark.parametrize("name", TRIMMING)
def test_nothing_is_trimmed_at_density_1(name):
    settings = {"density": 1.0, **({"gamma": 0.0} if name == "breadcrumbs" else {})}
    given = deltas(1)
    assert torch.equal(Merger(name, settings).merge(given)[0], given[0])


@pytest.mark.parametrize("name", [name for name in SEVERAL if name not in DRAWS_FOR_MEMBERS])
def test_the_order_of_the_pool_changes_rounding_at_most(name):
    given = deltas(5)
    merger = Merger(name, {})
    torch.testing.assert_close(merger.merge(given)[0], merger.merge(given.flip(0))[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("count", [0, 1, 8])
def test_zeros_and_nothing_merge_to_zeros(name, count):
    merged, _ = Merger(name, {}).merge(torch.zeros(3, count))
    assert merged.shape == (count,) and not merged.any()


@pytest.mark.parametrize("name", SEVERAL)
def test_negating_all_members_negates_the_result(name):
    given = deltas(4)
    merger = Merger(name, {})
    assert torch.equal(merger.merge(-given)[0], -merger.merge(given)[0])


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_drawn_hangs_on_seed_and_tensor(name):
    given = deltas(3)

    def drawn(seed=0, tensor="w"):
        return Merger(name, {}, seed).merge(given, place=Place(tensor))[0]

    assert torch.equal(drawn(), drawn())
    assert not torch.equal(drawn(), drawn(seed=1)) and not torch.equal(drawn(), drawn(tensor="v"))


@pytest.mark.parametrize("name", NAMES)
def test_every_method_says_what_it_is(name):
    module = MODULES[name]
    assert "\n" not in module.SUMMARY and len(module.SUMMARY) < 120
    assert "arXiv" in module.REFERENCE and module.REACH in ("element", "statistics")
    assert (module.REACH == "statistics") == (hasattr(module, "ranks") or hasattr(module, "count"))
    assert ">>>" in module.merge.__doc__
