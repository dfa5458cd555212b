"""The contract of every registered merge method."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from negmerge import registry
from negmerge.errors import InputError
from negmerge.merging.merger import Merger
from negmerge.merging.method import MergeSettings, Place, declared, load_method
from negmerge.merging.trimming import kth_magnitudes

NAMES = registry.names("methods", "negmerge.merging.methods")
ONE_MEMBER = {"task-arithmetic"}
SEVERAL = [name for name in NAMES if name not in ONE_MEMBER]
METHODS = {name: load_method(name) for name in NAMES}
RANDOM = [name for name in NAMES if METHODS[name].random]
TRIMMING = [name for name in NAMES if METHODS[name].ranks]
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
    method, settings = merger.method, merger.at("")
    if method.ranks:
        return kth_magnitudes(given, method.ranks(given.shape[1], settings))
    if method.count:
        return torch.tensor(method.count(given, settings) / given.shape[1], dtype=torch.float64)
    return None


def test_the_methods_are_there():
    assert set(NAMES) == {
        "breadcrumbs", "chance-intersection", "consensus", "dare", "magmax", "magnitude-consensus", "majority-sign",
        "median", "random-mask", "shuffled-signs", "soft-consensus", "task-arithmetic", "ties", "trimmed-mean",
        "uniform",
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
    method = METHODS[name]
    assert "\n" not in method.summary and len(method.summary) < 120
    assert "arXiv" in method.reference
    assert ">>>" in method.merge.__doc__ and "deltas: [N, n]" in method.merge.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_described_and_strict(name):
    method = METHODS[name]
    settings = method.settings()
    for key, field in method.settings.model_fields.items():
        assert field.description, key
        with pytest.raises(ValidationError):
            setattr(settings, key, None)
        if field.annotation is float:
            value = getattr(settings, key)
            assert getattr(method.settings(**{key: int(value)}), key) == int(value) if value == int(value) else True
            for wrong in (True, str(value), None, float("nan")):
                with pytest.raises(ValidationError):
                    method.settings(**{key: wrong})


def test_checking_a_request_does_not_import_torch():
    script = (
        "import sys; from negmerge import registry; from negmerge.merging.request import check_request; "
        "[check_request(name, {}) for name in registry.names('methods', 'negmerge.merging.methods')]; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def module(**changes):
    """The names that the module of a method declares."""
    names = {"SUMMARY": "s", "REFERENCE": "r", "REACH": "element", "Settings": MergeSettings, "merge": print}
    return {key: value for key, value in {**names, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (module(SUMMARY=None, Settings=None), "method mine: its module lacks SUMMARY, Settings"),
        (module(REACH="global"), "REACH must be element or statistics, got 'global'"),
        (module(REACH="statistics"), "ranks or count belongs to REACH = 'statistics', one of the two"),
        (module(ranks=len), "ranks or count belongs to REACH"),
        (module(REACH="statistics", ranks=len, count=len), "one of the two"),
        (module(Settings=dict), "Settings must be a subclass of"),
    ],
)
def test_a_module_that_is_no_method_is_named(names, message):
    with pytest.raises(InputError, match=message):
        declared("mine", names)


def test_a_module_may_leave_out_what_has_a_default():
    method = declared("mine", module())
    assert (method.random, method.ranks, method.count, method.defaults) == (False, None, None, {})
