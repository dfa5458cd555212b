"""Importance weights: θ₀ − α·w⊙τ, from files of any format, checked by name, shape and value."""

import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.execution import compiling
from negmerge.merging.engine import merge_checkpoints, merge_vector
from negmerge.merging.output.verifying import read_record

FLOATS = ("stem.weight", "stem.bias", "scale", "half", "brain", "exact", "head.weight")


def importance(base, seed=7):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.rand(value.shape, generator=g) for name, value in base.items() if value.is_floating_point()}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_term_is_multiplied(pool, tmp_path, monkeypatch, compiled, wrapped):
    monkeypatch.setattr(compiling, "AVAILABLE", compiled and compiling.AVAILABLE)
    base, members = pool
    origin = read_state_dict(base)
    weights = importance(origin)
    if wrapped:
        torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "fisher.pt")
    else:
        write_state_dict(tmp_path / "fisher.pt", weights)
    merge_vector(base, members, tmp_path / "tau.safetensors")
    report = merge_checkpoints(base, members, tmp_path / "out.safetensors", alpha=0.7, weights=tmp_path / "fisher.pt")
    tau, out = load_file(tmp_path / "tau.safetensors"), load_file(tmp_path / "out.safetensors")
    for name in FLOATS:
        delta = tau[name]
        expected = origin[name].to(delta.dtype) - 0.7 * (delta * weights[name].to(delta.dtype))
        torch.testing.assert_close(out[name], expected.to(origin[name].dtype), rtol=1e-6, atol=0)
    assert torch.equal(out["bn.running_var"], origin["bn.running_var"])
    assert read_record(tmp_path / "out.safetensors")["weights"]["name"].endswith("/fisher.pt")
    assert report.bytes_read > sum(origin[name].nbytes for name in FLOATS) * 6


def test_zero_and_one(pool, tmp_path):
    """Where w is 0 the base stays, where it is 1 the plain merge."""
    base, members = pool
    origin = read_state_dict(base)
    weights = {name: (torch.arange(value.numel()) % 2).reshape(value.shape).float() for name, value in origin.items()}
    write_state_dict(tmp_path / "w.safetensors", weights)
    merge_checkpoints(base, members, tmp_path / "w-out.safetensors", weights=tmp_path / "w.safetensors")
    merge_checkpoints(base, members, tmp_path / "plain.safetensors")
    weighted, plain = load_file(tmp_path / "w-out.safetensors"), load_file(tmp_path / "plain.safetensors")
    for name in FLOATS:
        assert torch.equal(weighted[name], torch.where(weights[name] == 1, plain[name], origin[name]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("stem.bias"), "does not fit as weights of .* in 1 tensors .*\n  stem.bias is missing"),
        (lambda w: w.update({"half": torch.ones(3)}), r"half has shape \[3\], in the base \[33\]"),
        (lambda w: w.update({"half": torch.ones(33, dtype=torch.int32)}), "half is int32, weights are floats"),
        (lambda w: w["half"].fill_(float("nan")), "w.safetensors: tensor half holds NaN or Inf"),
        (
            lambda w: w["stem.weight"][0].fill_(-0.25),
            r"tensor stem.weight holds -0.25; an importance is 0",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(pool, tmp_path, change, message):
    base, members = pool
    weights = importance(read_state_dict(base))
    change(weights)
    write_state_dict(tmp_path / "w.safetensors", weights)
    with pytest.raises(InputError, match=message):
        merge_checkpoints(base, members, tmp_path / "out.safetensors", weights=tmp_path / "w.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_only_what_merges_needs_weights(pool, tmp_path):
    base, members = pool
    write_state_dict(tmp_path / "w.safetensors", {"stem.bias": torch.full((7,), 0.5)})
    merge_checkpoints(
        base, members, tmp_path / "out.safetensors", weights=tmp_path / "w.safetensors", include=["stem.bias"]
    )
    merge_checkpoints(base, members, tmp_path / "half.safetensors", alpha=0.5, include=["stem.bias"])
    assert torch.equal(
        load_file(tmp_path / "out.safetensors")["stem.bias"], load_file(tmp_path / "half.safetensors")["stem.bias"]
    )
