"""The way over an accelerator, exercised on the CPU, and on CUDA where there is one: the bytes of the plain way."""

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.merging.applying import Outlet
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.hashes import InputHashes
from negmerge.merging.merger import Merger
from negmerge.merging.passes.executing import execute
from negmerge.merging.passes.on_device import DeviceTerm
from negmerge.merging.plan import plan_merge
from negmerge.merging.pool.opening import open_pool
from negmerge.merging.term import Term
from pools import drift, make_state

METHODS = [
    ("consensus", {}),
    ("consensus", {"threshold": 0.6, "mean": "agreeing", "zeros": "abstain"}),
    ("uniform", {}),
    ("magmax", {}),
    ("dare", {}),
    ("soft-consensus", {}),
    ("median", {}),
    ("trimmed-mean", {"trim": 0.3}),
]


def planned(pool, method, settings, hashed=False):
    merger = Merger(method, settings).fitted(pool.merged, pool.order)
    plan = plan_merge(pool.base, [Term(pool, merger, 0.7)])
    return plan, InputHashes((pool.base, *pool.members)) if hashed else InputHashes()


@pytest.mark.parametrize(("method", "settings"), METHODS)
def test_bytes_counts_and_hashes_are_those_of_the_other_ways(pool, method, settings):
    base, members = pool
    with open_pool(base, members) as opened:
        plan, hashes = planned(opened, method, settings, hashed=True)
        expected, found = {}, {}
        merged = execute(plan, Outlet(opened.base.dtype, lambda name, _, raw: expected.update({name: raw.tobytes()})))
        outlet = Outlet(opened.base.dtype, lambda name, _, raw: found.update({name: raw.tobytes()}))
        term = DeviceTerm(plan.terms[0], {}, "cpu", hashes)
        pieces = [(name, 0, size) for name, size in plan.sizes.items() if size]
        results = [term.merge_whole(piece, outlet) for piece in pieces]
        assert found == {name: raw for name, raw in expected.items() if raw}
        assert sum(piece.kept for piece, _ in results) == sum(count.kept for count in merged.counts[0])
        effect = sum(measured for _, measured in results)
        assert effect[0] == merged.effect.changed
        assert effect[1:] == pytest.approx(
            [
                merged.effect.step_squared,
                merged.effect.base_squared,
                merged.effect.error_squared,
                merged.effect.octaves_squared,
            ],
            rel=1e-4,
        )
        untouched = InputHashes((opened.base, *opened.members))
        assert [hashes.of(c) for c in (opened.base, *opened.members)] == [
            untouched.of(c) for c in (opened.base, *opened.members)
        ]


def test_what_is_not_finite_is_found(pool, tmp_path):
    base, members = pool
    state = drift(make_state(0), 7)
    state["head.weight"][1, 1] = float("inf")
    write_state_dict(tmp_path / "bad.safetensors", state)
    with open_pool(base, [*members, tmp_path / "bad.safetensors"]) as opened:
        plan, hashes = planned(opened, "uniform", {})
        term = DeviceTerm(plan.terms[0], {}, "cpu", hashes)
        with pytest.raises(InputError, match=r"bad.safetensors: tensor head.weight holds NaN or Inf"):
            term.merge(("head.weight", 0, 21))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("method", "settings"), [*METHODS, ("ties", {}), ("random-mask", {})])
def test_cuda_gives_the_bytes_of_the_cpu(pool, tmp_path, method, settings):
    base, members = pool
    options = {"method": method, "settings": settings, "alpha": 0.7}
    first = merge_checkpoints(base, members, tmp_path / "cpu.safetensors", **options)
    second = merge_checkpoints(base, members, tmp_path / "cuda.safetensors", device="cuda", **options)
    assert (tmp_path / "cpu.safetensors").read_bytes() == (tmp_path / "cuda.safetensors").read_bytes()
    assert first.tensors == second.tensors
