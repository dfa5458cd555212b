"""Moments in files, and merged vectors projected by them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from negmerge.errors import InputError
from negmerge.projection import MomentRows, Moments, Projection, is_current, project, project_vector, write_moments


class Net(nn.Module):
    """A convolution, a normalisation, two linear layers of one input, and a packed attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6, bias=False)
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, images):
        x = self.up(self.norm(self.conv(images)).relu()).mean((2, 3))
        return self.attend(self.a(x)[:, None], self.b(x)[:, None], self.b(x)[:, None])[0]


def run(model, batch):
    return model(batch)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def rows_of(seed: int, count: int = 24, size: int = 8) -> MomentRows:
    images = torch.randn(count, 2, 5, 5, generator=torch.Generator().manual_seed(seed))
    return MomentRows(lambda: images.split(size), count, f"rows of seed {seed}")


@pytest.fixture
def moments_file(net, tmp_path):
    return written(net, tmp_path / "moments.safetensors")


def written(net, path: Path, **options) -> Path:
    first = next(iter(rows_of(1).batches()))[:2]
    write_moments(path, net, rows_of(1), rows_of(2), run, first, {"model": "x"}, **options)
    return path


def vector_of(net, path: Path) -> Path:
    generator = torch.Generator().manual_seed(5)
    save_file({name: torch.randn(p.shape, generator=generator) for name, p in net.named_parameters()}, path)
    return path


def test_layers_in_turns_give_the_bytes_of_one_pass(net, tmp_path):
    whole = written(net, tmp_path / "whole.safetensors")
    turns = []
    written(
        net, tmp_path / "turns.safetensors", memory=8 * 4 * 100, tell=lambda event, **facts: turns.append(facts["turn"])
    )
    assert max(turns) > 2
    assert whole.read_bytes() == (tmp_path / "turns.safetensors").read_bytes()


def test_the_file_is_private_and_says_what_it_is_of(moments_file):
    assert moments_file.stat().st_mode & 0o777 == 0o600
    assert is_current(moments_file, {"model": "x"})
    assert not is_current(moments_file, {"model": "y"})
    assert not is_current(moments_file.with_name("none"), {"model": "x"})
    with Moments(moments_file) as moments:
        assert moments.facts["retain"] == {"rows": 24, "about": "rows of seed 2"}
        assert [layer.weight[0] for layer in moments.layers][:2] == ["conv.weight", "up.weight"]


def test_a_vector_is_projected_layer_by_layer(net, moments_file, tmp_path):
    vector = vector_of(net, tmp_path / "vector.safetensors")
    with Moments(moments_file) as moments:
        report = project_vector(Projection(moments, 10.0), vector, tmp_path / "out.safetensors")
        before, after = load_file(vector), load_file(tmp_path / "out.safetensors")
        assert list(after) == list(before)
        # A linear layer with its bias, by the formula.
        both = torch.cat([before["a.weight"], before["a.bias"][:, None]], 1)
        wanted = project(both, moments.of("forget", "a")[0], moments.of("retain", "a")[0], 10.0).delta.float()
        torch.testing.assert_close(after["a.weight"], wanted[:, :-1])
        torch.testing.assert_close(after["a.bias"], wanted[:, -1])
        # One that shares the input and has no bias uses the part of the moments without ones.
        own = [moments.of(part, "a")[0, :-1, :-1] for part in ("forget", "retain")]
        torch.testing.assert_close(after["b.weight"], project(before["b.weight"], *own, 10.0).delta.float())
        # The key's rows of a packed projection, with their bias.
        key = torch.cat([before["attend.in_proj_weight"][6:12], before["attend.in_proj_bias"][6:12, None]], 1)
        own = [moments.of(part, "attend:key")[0] for part in ("forget", "retain")]
        torch.testing.assert_close(after["attend.in_proj_weight"][6:12], project(key, *own, 10.0).delta.float()[:, :-1])
        # Groups of a convolution each have their own inputs.
        own = [moments.of(part, "conv")[1] for part in ("forget", "retain")]
        second = torch.cat([before["conv.weight"][2:].flatten(1), before["conv.bias"][2:, None]], 1)
        found = project(second, *own, 10.0).delta.float()
        torch.testing.assert_close(after["conv.weight"][2:].flatten(1), found[:, :-1])
    assert after["norm.weight"].abs().max() == 0  # a vector of one dimension has no inputs
    assert sorted(report.without) == ["norm.bias", "norm.weight"]
    effects = {layer.name: layer.as_json() for layer in report.layers}
    assert all(one["after"] < one["before"] for one in effects.values())
    assert len(effects) == 8


def test_the_effect_is_what_the_change_does_to_outputs(net, moments_file, tmp_path):
    vector = vector_of(net, tmp_path / "vector.safetensors")
    with Moments(moments_file) as moments:
        report = project_vector(Projection(moments, 10.0), vector, tmp_path / "out.safetensors")
    (effect,) = [layer for layer in report.layers if layer.name == "a.weight"]
    inputs = []
    handle = net.a.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    for batch in rows_of(2).batches():
        net(batch)
    handle.remove()
    for file, found in ((vector, effect.retain_before), (tmp_path / "out.safetensors", effect.retain_after)):
        tau = load_file(file)
        outputs = torch.cat(inputs) @ tau["a.weight"].T + tau["a.bias"]
        assert outputs.square().sum(1).mean().sqrt().item() == pytest.approx(found, rel=1e-4)


def test_without_strength_a_vector_stays_on_forget_inputs(net, moments_file, tmp_path):
    vector = vector_of(net, tmp_path / "vector.safetensors")
    with Moments(moments_file) as moments:
        report = project_vector(Projection(moments, 0.0, "keep"), vector, tmp_path / "out.safetensors")
    for layer in report.layers:
        assert layer.forget_after == pytest.approx(layer.forget_before, rel=1e-2)
    after, before = load_file(tmp_path / "out.safetensors"), load_file(vector)
    assert torch.equal(after["norm.weight"], before["norm.weight"])


def test_a_bias_alone_and_a_weight_alone_are_projected_by_their_own_inputs(net, moments_file, tmp_path):
    vector = {"a.bias": torch.ones(6)}
    save_file(vector, tmp_path / "bias.safetensors")
    with Moments(moments_file) as moments:
        with pytest.raises(InputError, match="none of its layers"):
            project_vector(Projection(moments, 1.0), tmp_path / "bias.safetensors", tmp_path / "out.safetensors")
        save_file({**vector, "conv.weight": torch.ones(4, 1, 3, 3)}, tmp_path / "bias.safetensors")
        project_vector(Projection(moments, 1.0), tmp_path / "bias.safetensors", tmp_path / "out.safetensors")
    torch.testing.assert_close(
        load_file(tmp_path / "out.safetensors")["a.bias"], torch.full((6,), 0.5), rtol=1e-4, atol=0
    )


def test_moments_of_another_model_and_other_files_are_refused(net, moments_file, tmp_path):
    save_file({"conv.weight": torch.ones(4, 1, 5, 5)}, tmp_path / "other.safetensors")
    with Moments(moments_file) as moments:
        with pytest.raises(InputError, match=r"layer conv\.weight has 9 inputs"):
            project_vector(Projection(moments, 1.0), tmp_path / "other.safetensors", tmp_path / "out.safetensors")
        with pytest.raises(InputError, match="a number from 0, got -1"):
            Projection(moments, -1)
    with pytest.raises(InputError, match="no moments file"):
        Moments(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no linear layer"):
        write_moments(tmp_path / "m", nn.BatchNorm2d(2), rows_of(1), rows_of(2), run, torch.ones(2, 2, 3, 3), {})


def test_a_broken_file_is_not_current(moments_file):
    whole = moments_file.read_bytes()
    for broken in (b"", whole[:5], whole[:200], whole[:-1]):
        moments_file.write_bytes(broken)
        assert not is_current(moments_file, {"model": "x"})
    moments_file.write_bytes(whole)
    assert is_current(moments_file, {"model": "x"})
