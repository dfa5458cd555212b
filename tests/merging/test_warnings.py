"""What merge and inspect warn of: nothing kept, a change that the dtype does not hold, another base, odd members."""

import json
from contextlib import ExitStack

import pytest
import torch

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.cli import main
from negmerge.execution import compiling
from negmerge.merging.applying import Outlet
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.merging.merger import Merger
from negmerge.merging.output.reports import merge_report
from negmerge.merging.passes.executing import execute
from negmerge.merging.plan import plan_merge
from negmerge.merging.pool.opening import open_pool
from negmerge.merging.resolution import HELD, rounded_up
from negmerge.merging.term import Term

SHAPES = {"embed": (40, 24), "layers.0.w": (24, 24), "layers.1.w": (24, 24), "norm": (24,)}


def network(seed):
    """Weights as networks begin with: small matrices, and scales of 1 that all networks share."""
    g = torch.Generator().manual_seed(seed)
    return {n: 0.02 * torch.randn(s, generator=g) if len(s) > 1 else torch.ones(s) for n, s in SHAPES.items()}


def tuned(state, seed, size, common=1.0):
    """A fine-tuning: a step that all seeds share, and half as much of its own."""
    g, shared = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)

    def step(value):
        return size * (
            common * torch.randn(value.shape, generator=shared) + 0.5 * torch.randn(value.shape, generator=g)
        )

    return {name: value.float() + step(value) for name, value in state.items()}


@pytest.fixture
def both(tmp_path):
    """Write a base and members; returns merge's report and what inspect finds, whose warnings are to be the same."""

    def run(base, members, **more):
        write_state_dict(tmp_path / "base.safetensors", base)
        paths = [tmp_path / f"m{i}.safetensors" for i in range(len(members))]
        for path, state in zip(paths, members, strict=True):
            write_state_dict(path, state)
        report = merge_checkpoints(
            tmp_path / "base.safetensors", paths, tmp_path / "out.safetensors", overwrite=True, **more
        )
        return report, inspect_checkpoints(tmp_path / "base.safetensors", paths)

    return run


def kinds(lines):
    return [line.partition(":")[0] for line in lines]


def test_a_pool_that_is_in_order_has_no_warning(both):
    base = network(0)
    report, found = both(base, [tuned(base, i, 0.002) for i in range(4)])
    assert report.warnings == found.warnings == ()


def test_nothing_kept(both):
    base = network(0)
    members = [tuned(base, i, 0.002, common=0.0) for i in range(60)]
    report, found = both(base, members)
    assert report.kept == report.effect.changed == 0
    assert report.warnings == found.warnings
    assert kinds(report.warnings)[0] == "nothing-kept" and "lower --threshold" in report.warnings[0]
    assert not any("is near the" in line for line in report.warnings)


def test_alpha_0_changes_nothing(both):
    base = network(0)
    report, _ = both(base, [tuned(base, i, 0.002) for i in range(4)], alpha=0.0)
    assert kinds(report.warnings) == ["nothing-changed"] and report.effect.changed == 0


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_change_below_the_resolution(both, tmp_path, monkeypatch, dtype, quick):
    monkeypatch.setattr(compiling, "AVAILABLE", quick and compiling.AVAILABLE)
    base = {name: value.to(dtype) for name, value in network(0).items()}
    members = [tuned(base, i, 2e-5 if dtype == torch.bfloat16 else 2e-6) for i in range(3)]
    report, found = both(base, members)
    assert kinds(report.warnings) == ["below-resolution"] and report.warnings == found.warnings
    (line,) = report.warnings
    out = read_state_dict(tmp_path / "out.safetensors")
    changed = sum(int((out[n] != base[n]).sum()) for n in base) / sum(value.numel() for value in base.values())
    assert f"{100 * changed:.1f} % of the merged elements differ" in line and 0 < changed < 0.5
    assert report.effect.changed_share == pytest.approx(changed) == found.effect.changed_share
    # The error by hand: what stands in OUT beside what was computed in float32.
    squares = torch.zeros(2, dtype=torch.float64)
    for name, value in base.items():
        deltas = torch.stack([m[name] - value.float() for m in members])
        delta = deltas.mean(0) * ((deltas > 0).all(0) | (deltas < 0).all(0))
        squares += torch.stack(
            [(out[name].double() - (value.double() - delta.double())).square().sum(), delta.double().square().sum()]
        )
    error = float((squares[0] / squares[1]).sqrt())
    assert report.effect.rounding == pytest.approx(error, rel=1e-3) and f"cast {error:.2f}" in line
    assert report.effect.octaves_squared == pytest.approx(found.effect.octaves_squared)
    # Both pieces of advice hold.
    advised = line.partition("--dtype ")[2].split()[0]
    assert both(base, members, dtype=advised)[0].effect.rounding <= HELD
    alpha = float(line.partition("--alpha ")[2].split()[0])
    assert both(base, members, alpha=alpha)[0].effect.rounding <= HELD
    smaller = both(base, members, alpha=alpha / 2)[0]
    assert smaller.effect.rounding > HELD
    assert smaller.warnings == ()  # most of the change is there


def test_a_cast_of_the_whole_model_is_no_loss_of_the_change(both):
    """With --dtype bfloat16 all weights are rounded; the warning is of the elements that were to change."""
    base = network(0)
    row = torch.zeros(SHAPES["embed"])
    row[0] = 4e-4
    few = [{**base, "embed": base["embed"] + row * (1 + 0.1 * i)} for i in range(3)]
    report, _ = both(base, few, dtype="bfloat16")
    assert report.effect.rounding > 0.5 and kinds(report.warnings) == kinds(
        ["98 % of the differences are exactly 0 (half precision?); --zeros abstain lets the others decide"]
    )


def test_members_of_another_base(both):
    base, other = network(0), network(1)
    report, found = both(base, [tuned(other, i, 0.002) for i in range(3)])
    assert kinds(report.warnings) == ["other-base"] == kinds(found.warnings)
    assert "all 3 members are not like a fine-tuning of this base" in report.warnings[0]
    assert all(abs(value) < 0.1 for value in found.to_base) and found.consensus > 0.8
    # One of them alone is named.
    report, found = both(base, [tuned(base, 1, 0.002), tuned(base, 2, 0.002), tuned(other, 3, 0.002)])
    assert report.warnings == found.warnings or kinds(report.warnings) == kinds(found.warnings) == ["other-base"]
    assert "m2.safetensors is not like" in report.warnings[0] and "m1.safetensors" not in report.warnings[0]


def test_layers_in_other_places(both):
    own = network(0)
    base = {**own, "layers.0.w": own["layers.1.w"], "layers.1.w": own["layers.0.w"]}
    report, found = both(base, [tuned(own, i, 0.001) for i in range(3)])
    assert kinds(report.warnings) == kinds(found.warnings) == ["other-base"]


@pytest.mark.parametrize("method", ["consensus", "uniform", "ties"])
def test_honest_members_far_from_their_base_are_not_accused(both, method):
    base = network(0)
    pools = {
        "lost their way": [tuned(base, i, 0.2) for i in range(3)],
        "shrunk by weight decay": [{n: 0.2 * v for n, v in tuned(base, i, 0.001).items()} for i in range(3)],
        "moved together": [tuned(base, i, 0.01) for i in range(3)],
    }
    for name, members in pools.items():
        report, found = both(base, members, method=method)
        assert "other-base" not in kinds([*report.warnings, *found.warnings]), name


def test_the_cosines_by_hand(both):
    base = network(0)
    members = [tuned(base, i, 0.01) for i in range(3)]
    _, found = both(base, members)
    theta = torch.cat([base[n].double().flatten() for n in SHAPES if n != "norm"])
    for i, state in enumerate(members):
        own = torch.cat([state[n].double().flatten() for n in SHAPES if n != "norm"])
        assert found.to_base[i] == pytest.approx(float(own @ theta / own.norm() / theta.norm()), abs=1e-6)
        assert found.relative_size[i] == pytest.approx(float((own - theta).norm() / theta.norm()), rel=1e-5)
        along = (own - theta) @ theta / (own - theta).norm() / theta.norm()
        assert found.away_from_base[i] == pytest.approx(float(along), abs=1e-5)


def test_other_methods_judge_the_signs_that_all_members_share(both):
    base = network(0)
    report, _ = both(base, [tuned(base, i, 0.002, common=0.0) for i in range(3)], method="uniform")
    assert kinds(report.warnings) == ["unstable-signs"] and "is not clearly above the 25.0 %" in report.warnings[0]


def test_the_member_that_points_away_is_named_once(both):
    base = network(0)
    members = [tuned(base, 0, 0.002), tuned(base, 1, 0.002)]
    members.append({n: 2 * base[n] - v for n, v in tuned(base, 2, 0.002).items()})
    report, found = both(base, members, settings={"threshold": 0.6})
    (line,) = [line for line in report.warnings if "away" in line]
    assert "m2.safetensors points away from the other members" in line
    assert any("m2.safetensors points away" in other for other in found.warnings)


def test_mostly_zeros(both):
    base = network(0)
    members = []
    for i in range(4):
        state = tuned(base, i, 0.002)
        members.append(
            {n: torch.where(torch.arange(v.numel()).reshape(v.shape) % 3 > 0, base[n], v) for n, v in state.items()}
        )
    report, _ = both(base, members)
    assert len(report.warnings) == 1 and report.warnings[0].endswith("--zeros abstain lets the others decide")
    report, _ = both(base, members, settings={"zeros": "abstain"})
    assert len(report.warnings) == 1 and report.warnings[0].endswith("save the members in float32")


def test_the_command_prints_the_effect(both, tmp_path, capfd):
    base = {name: value.bfloat16() for name, value in network(0).items()}
    both(base, [tuned(base, i, 2e-5) for i in range(3)])
    words = [str(tmp_path / name) for name in ("base.safetensors", "m0.safetensors", "m1.safetensors")]
    with pytest.raises(SystemExit):
        main(["merge", *words, "-o", str(tmp_path / "new.safetensors")])
    out, err = capfd.readouterr()
    assert "  changed    " in out and "relative error of the cast 0." in out and "‖α·τ‖/‖θ₀‖ = " in out
    assert out.splitlines()[-1].startswith("warning: below-resolution: bfloat16 does not hold most") and err == ""
    with pytest.raises(SystemExit):
        main(["inspect", *words])
    out, _ = capfd.readouterr()
    assert out.count("cos(θᵢ, θ₀) = 1.000, ‖τᵢ‖/‖θ₀‖ = ") == 2 and "warning: below-resolution: " in out
    with pytest.raises(SystemExit):
        main(["inspect", *words, "--json"])
    facts = json.loads(capfd.readouterr()[0])
    assert len(facts["cosine_to_base"]) == len(facts["size_over_base"]) == 2 and facts["rounding_error"] > 0.5


@pytest.mark.parametrize(
    ("number", "expected"), [(0.0, 0.0), (1.0, 1.0), (99.1, 100.0), (-1.21, -1.3), (0.00123, 0.0013)]
)
def test_rounding_an_alpha_away_from_0(number, expected):
    assert rounded_up(number) == pytest.approx(expected)


def test_of_several_terms_each_is_judged_by_its_number(tmp_path):
    base, other = network(0), network(1)
    pools = {"a": [tuned(base, i, 0.002) for i in range(3)], "b": [tuned(other, i, 0.002) for i in range(3)]}
    write_state_dict(tmp_path / "base.safetensors", base)
    for name, members in pools.items():
        for i, state in enumerate(members):
            write_state_dict(tmp_path / f"{name}{i}.safetensors", state)
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_pool(tmp_path / "base.safetensors", sorted(tmp_path.glob(f"{name}*[0-9].*"))))
            for name in pools
        ]
        terms = [Term(pool, Merger("consensus", {}), alpha) for pool, alpha in zip(opened, (0.5, 0.1), strict=True)]
        plan = plan_merge(opened[0].base, terms)
        merged = execute(plan, Outlet(plan.base.dtype, lambda *_: None))
        report = merge_report(plan, merged, tmp_path / "out", 0.0, plan.bytes_to_read)
    assert [line.split(": ")[:2] for line in report.warnings] == [["term 2", "other-base"]]
    assert report.effect.changed > 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("available", [True, False])
def test_products_beyond_the_range_of_numbers_judge_nobody(both, tmp_path, capfd, monkeypatch, available):
    """Elements of ±1e30 are weights like any other; sums of their products are inf or NaN, of which nothing follows."""
    monkeypatch.setattr(compiling, "AVAILABLE", available and compiling.AVAILABLE)
    base = network(0)
    base["embed"][0, :2] = torch.tensor([1e30, -1e30])
    far = tuned(base, 2, 0.002)
    far["embed"][0, :2] = torch.tensor([2e30, -1e30])
    report, inspection = both(base, [tuned(base, 1, 0.002), far])
    assert kinds(report.warnings) == kinds(inspection.warnings)
    assert "other-base" not in kinds(report.warnings)
    paths = [str(tmp_path / name) for name in ("base.safetensors", "m0.safetensors", "m1.safetensors")]
    with pytest.raises(SystemExit):
        main(["inspect", *paths, "--json"])
    found = json.loads(capfd.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["elements"] == report.elements and found["consensus"] == inspection.consensus
