"""The compiled way against the plain one: the same bits, whatever the rule, the dtype and the format."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.merging.applying import Outlet
from negmerge.merging.compiled import fused, fused_ranks, reading, storing
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts, merge_vector
from negmerge.merging.merger import Merger
from negmerge.merging.passes import plain
from negmerge.merging.passes.executing import execute
from negmerge.merging.plan import plan_merge
from negmerge.merging.pool.opening import open_pool
from negmerge.merging.term import Term

pytestmark = pytest.mark.skipif(not compiling.AVAILABLE, reason="needs numba")

COUNT = 3 * 2**15 + 77  # more than one block
RULES = [
    ("uniform", {}),
    ("consensus", {}),
    ("consensus", {"mean": "agreeing"}),
    ("consensus", {"threshold": 0.6}),
    ("consensus", {"threshold": 0.5, "mean": "agreeing"}),
    ("consensus", {"zeros": "abstain"}),
    ("consensus", {"threshold": 0.6, "zeros": "abstain", "mean": "agreeing"}),
    ("majority-sign", {}),
    ("majority-sign", {"elect_by": "count"}),
    ("ties", {}),
    ("ties", {"density": 0.5, "elect_by": "count"}),
    ("ties", {"density[w]": 0.05, "elect_by[0$]": "count"}),
]


def big_state(seed, dtypes):
    """Weights with zeros, denormals and every sign pattern among the members."""
    g = torch.Generator().manual_seed(seed)
    state = {}
    for i, dtype in enumerate(dtypes):
        values = 0.02 * torch.randint(-2, 3, (COUNT,), generator=g) * torch.rand(COUNT, generator=g)
        values[::5] = 0.0
        values[1::97] *= 1e-6
        state[f"w{i}"] = values.to(dtype)
        state[f"small{i}"] = torch.randn(3, generator=g).to(dtype)
    return state


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A base and four members of all dtypes; one member is a .pt file, one has other dtypes than the base."""
    folder = tmp_path_factory.mktemp("large")
    write_state_dict(folder / "base.safetensors", big_state(0, DTYPES))
    members = []
    for i in range(1, 5):
        dtypes = (torch.float16, torch.float32, torch.bfloat16, torch.float64) if i == 2 else DTYPES
        state = big_state(i, dtypes)
        members.append(folder / (f"{i}.pt" if i == 3 else f"{i}.safetensors"))
        torch.save(state, members[-1]) if i == 3 else write_state_dict(members[-1], state)
    return folder / "base.safetensors", members


@pytest.fixture
def compiled(monkeypatch):
    """The names that each merge gave to the compiled loops."""
    taken = []
    original = fused.fused_terms

    def watched(*arguments):
        found = original(*arguments)
        taken.append([name for term in found for name in term.names])
        return found

    monkeypatch.setattr(fused, "fused_terms", watched)
    return taken


@pytest.fixture
def without_numba(monkeypatch):
    """A switch: what is merged once it was called takes the plain way, as where numba is not installed."""
    return lambda: monkeypatch.setattr(compiling, "AVAILABLE", False)


def cut_into(monkeypatch, chunk):
    """Make every job as large as `chunk` elements."""
    for module in (fused, fused_ranks, plain):
        monkeypatch.setattr(module, "CHUNK", chunk)


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(("method", "settings"), RULES)
@pytest.mark.parametrize("add", [False, True])
def test_compiled_equals_plain(large, tmp_path, compiled, without_numba, method, settings, add):
    base, members = large
    options = {"method": method, "settings": settings, "alpha": 0.37, "add": add}
    first = merge_checkpoints(base, members, tmp_path / "a.safetensors", workers=3, **options)
    taken = len(compiled)
    assert sorted(name for names in compiled for name in names) == sorted(
        f"{kind}{i}" for kind in ("w", "small") for i in range(3)
    )
    without_numba()
    second = merge_checkpoints(base, members, tmp_path / "b.safetensors", **options)
    assert len(compiled) == taken
    assert first.tensors == second.tensors and first.kept > 0
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


RANKED = [
    ("ties", {}),
    ("ties", {"scope": "model"}),
    ("breadcrumbs", {}),
    ("breadcrumbs", {"scope": "model", "density": 0.3}),
    ("magnitude-consensus", {"density[w1]": 0.9}),
]


@pytest.mark.parametrize(("method", "settings"), RANKED)
@pytest.mark.parametrize("exclude", [(), ("3$",)])  # float64 is no dtype of the compiled loops
def test_compiled_ranks_equal_plain(large, tmp_path, monkeypatch, method, settings, exclude):
    base, members = large
    options = {"method": method, "settings": settings, "exclude": exclude}
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "AVAILABLE", False)
        first = merge_checkpoints(base, members, tmp_path / "a.safetensors", **options)
    for chunk in (2**18, 2**14):  # small tensors are selected in, large ones counted
        with monkeypatch.context() as patch:
            cut_into(patch, chunk)
            events = []
            second = merge_checkpoints(
                base, members, tmp_path / "b.safetensors", workers=3, overwrite=True, on_event=events.append, **options
            )
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
        assert first.tensors == second.tensors and 0 < first.kept < first.merged_elements
        assert max(event["bytes"] for event in events) == second.bytes_read


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["w0", "w1", "small2"])
@pytest.mark.parametrize("settings", [{}, {"scope": "model"}])
@pytest.mark.parametrize("chunk", [2**14, 2**18])
def test_ranks_find_what_is_not_finite(large, tmp_path, monkeypatch, value, name, settings, chunk):
    base, members = large
    state = read_state_dict(members[0])
    state[name][-1] = value
    write_state_dict(tmp_path / "bad.safetensors", state)
    cut_into(monkeypatch, chunk)
    with pytest.raises(InputError, match=rf"bad.safetensors: tensor {name} holds NaN or Inf"):
        merge_vector(
            base, [tmp_path / "bad.safetensors", *members[1:]], tmp_path / "o", method="ties", settings=settings,
            exclude=["3$"],
        )  # fmt: skip


def test_vectors_and_memory_too(large, tmp_path, compiled, without_numba):
    base, members = large
    first = merge_vector(base, members, tmp_path / "a.safetensors")
    states = [read_state_dict(path) for path in (base, *members)]
    third = merge_state_dicts(states[0], states[1:], alpha=0.5)
    assert len(compiled) == 2
    without_numba()
    second = merge_vector(base, members, tmp_path / "b.safetensors")
    assert first == second
    same(load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors"))
    same(third, merge_state_dicts(states[0], states[1:], alpha=0.5))


@pytest.mark.parametrize("chunk", [100, 2**15 - 3, 2**16])
def test_chunks_do_not_change_the_bytes(large, tmp_path, compiled, monkeypatch, chunk):
    base, members = large
    merge_checkpoints(base, members, tmp_path / "a.safetensors")
    cut_into(monkeypatch, chunk)
    merge_checkpoints(base, members, tmp_path / "b.safetensors", workers=1)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["w0", "w1", "w2", "small0"])
@pytest.mark.parametrize(("method", "settings"), [RULES[0], RULES[1], RULES[2], RULES[3]])
def test_what_is_not_finite_is_found(large, tmp_path, compiled, value, name, method, settings):
    base, members = large
    state = read_state_dict(members[0])
    state[name][-1] = value
    write_state_dict(tmp_path / "bad.safetensors", state)
    with pytest.raises(InputError, match=rf"bad.safetensors: tensor {name} holds NaN or Inf"):
        merge_checkpoints(
            base, [tmp_path / "bad.safetensors", *members[1:]], tmp_path / "o.safetensors", method=method,
            settings=settings,
        )  # fmt: skip
    assert not (tmp_path / "o.safetensors").exists() and len(compiled) == 1


def test_a_member_equal_to_the_base_is_found(large, tmp_path, compiled):
    base, members = large
    state = read_state_dict(base)
    write_state_dict(tmp_path / "copy.safetensors", state, {"note": "other bytes"})
    with pytest.raises(InputError, match=r"copy.safetensors equals the base in every merged tensor"):
        merge_checkpoints(base, [members[0], tmp_path / "copy.safetensors"], tmp_path / "o.safetensors")


@pytest.mark.parametrize("alpha", [1e300, 3e38, -1e38])
def test_a_result_out_of_range_is_refused(large, tmp_path, without_numba, alpha):
    base, members = large
    for switch in (lambda: None, without_numba):
        switch()
        with pytest.raises(InputError, match=r"leaves the range of b?float.*; choose a smaller alpha"):
            merge_checkpoints(base, members, tmp_path / "o.safetensors", method="uniform", alpha=alpha)
    assert not (tmp_path / "o.safetensors").exists()


def test_a_sum_that_overflows_only_where_nothing_is_kept(tmp_path, compiled):
    high, low = torch.full((5,), 3e38), torch.full((5,), -3e38)
    states = [{"w": torch.zeros(5)}, {"w": high}, {"w": high.clone()}, {"w": low}]
    assert merge_state_dicts(states[0], states[1:])["w"].tolist() == [0.0] * 5


def test_a_file_cut_while_it_is_read(large, tmp_path, compiled, monkeypatch):
    base, members = large
    state = read_state_dict(members[0])
    write_state_dict(tmp_path / "short.safetensors", state)
    original = fused.merge_pieces

    def cutting(*arguments):
        with (tmp_path / "short.safetensors").open("r+b") as file:
            file.truncate(1000)
        return original(*arguments)

    monkeypatch.setattr(fused, "merge_pieces", cutting)
    with pytest.raises(InputError, match="it changed while it was read"):
        merge_checkpoints(
            base, [tmp_path / "short.safetensors", *members[1:]], tmp_path / "o.safetensors", hash_inputs=False
        )


def test_float16_is_rounded_as_by_numpy():
    """A number that is called out of range would take the plain way as well: right bytes, at twice the time."""
    g = np.random.default_rng(0)
    sizes = (1e-9, 1e-7, 6e-6, 1e-4, 0.02, 1.0, 1e4)
    values = np.concatenate([size * g.standard_normal(5000) for size in sizes]).astype(np.float32)
    values = np.append(values, np.float32([0.0, -0.0, 65504.0, 65519.9, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25]))
    out, back = np.empty(len(values), np.uint16), np.empty(len(values), np.float32)
    assert storing.round_to(reading.FLOAT16, values, out, back) == 0
    assert np.array_equal(out, values.astype(np.float16).view(np.uint16))
    assert np.array_equal(back, values.astype(np.float16).astype(np.float32))
    assert storing.round_to(reading.FLOAT16, np.float32([65520.0, -1e6, 1.0]), out, back) == 2


@pytest.mark.parametrize("members", [3, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_measure_the_same(tmp_path, monkeypatch, members, dtype):
    """The same elements are sampled, whatever the chunks: equal counts, products equal to 1e-5."""

    g = torch.Generator().manual_seed(0)
    shapes = {"long": (3, 70_000), "odd": (129, 257), "vector": (20_001,), "small": (5,)}
    base = {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}
    paths = [tmp_path / f"{i}.safetensors" for i in range(members + 1)]
    write_state_dict(paths[0], base)
    for path in paths[1:]:
        state = {n: v + (0.05 * torch.randn(v.shape, generator=g)).to(dtype) for n, v in base.items()}
        write_state_dict(path, state)
    found = []
    for available in (True, False):
        with monkeypatch.context() as patch, open_pool(paths[0], paths[1:]) as pool:
            patch.setattr(compiling, "AVAILABLE", available and compiling.AVAILABLE)
            plan = plan_merge(pool.base, [Term(pool, Merger("consensus", {}))])
            assert (plan.sources[0] is not None) == (available and compiling.AVAILABLE)
            found.append(execute(plan, Outlet(pool.base.dtype, lambda *_: None)))
    (one,), (two,) = found[0].agreements, found[1].agreements
    assert np.array_equal(one.counts, two.counts)
    blocks = {n: divmod(int(np.prod(s)), 2**14) for n, s in shapes.items()}
    assert one.elements == sum(512 * whole + min(512, rest) for whole, rest in blocks.values())
    for a, b in zip(one.products, two.products, strict=True):  # of matrices, of vectors
        scale = np.sqrt(np.outer(b.diagonal(), b.diagonal()))
        assert (scale > 0).all() and np.abs((a - b) / scale).max() < 1e-5
    quick, plain = found[0].effect, found[1].effect
    assert (quick.elements, quick.changed) == (plain.elements, plain.changed)
    for key in ("step_squared", "base_squared", "error_squared", "octaves_squared"):
        assert getattr(quick, key) == pytest.approx(getattr(plain, key), rel=1e-5), key
