"""Moments of a model whose names differ from those of the checkpoints that merge."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from negmerge import merge
from negmerge.cli import main
from negmerge.errors import InputError
from negmerge.projection import MomentRows, Moments, Projection, write_moments


class Net(nn.Module):
    """A body of two layers and a head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, rows):
        return self.head(self.body(rows).relu())


class Outer(nn.Module):
    """The body of a network beside another head, as tasks put one on a body."""

    def __init__(self, net):
        super().__init__()
        self.model, self.score = net.body, net.head

    def forward(self, rows):
        return self.score(self.model(rows).relu())


def rows(seed):
    drawn = torch.randn(20, 5, generator=torch.Generator().manual_seed(seed))
    return MomentRows(lambda: drawn.split(10), 20, f"rows {seed}")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def moments_of(model, file):
    first = next(iter(rows(1).batches()))[:1]
    write_moments(file, model, rows(1), rows(2), lambda own, batch: own(batch), first, {})
    return file


def merged(state, moments, folder, rename=lambda name: name):
    """Merge one member, names renamed as the base's are; return OUT under the names of the net, and the report."""
    generator = torch.Generator().manual_seed(7)
    moved = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in state.items()}
    folder.mkdir()
    for name, values in (("base", state), ("member", moved)):
        save_file({rename(own): value for own, value in values.items()}, folder / f"{name}.safetensors")
    files = [folder / f"{name}.safetensors" for name in ("base", "member", "out")]
    with Moments(moments) as opened:
        report = merge(files[0], [files[1]], files[2], method="uniform", projection=Projection(opened, 5.0))
    out = load_file(files[2])
    return {own: out[rename(own)] for own in state}, report.projection


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"module.{name}",
        lambda name: f"base_model.model.{name}",
        lambda name: f"transformer.{name}" if name.startswith("body") else name,
    ],
)
def test_one_prefix_that_only_the_checkpoint_has_changes_nothing(net, tmp_path, rename):
    moments = moments_of(net, tmp_path / "moments")
    plain, _ = merged(net.state_dict(), moments, tmp_path / "plain")
    other, done = merged(net.state_dict(), moments, tmp_path / "other", rename)
    for name, value in plain.items():
        assert torch.equal(value, other[name])
    assert len(done["layers"]) == 3
    assert done["layers"][0]["name"] == rename("body.0.weight")
    assert done["without"] == sorted(rename(f"body.1.{name}") for name in ("weight", "bias"))
    assert "missing" not in done


def test_one_prefix_that_only_the_moments_have_changes_nothing(net, tmp_path):
    plain, _ = merged(net.state_dict(), moments_of(net, tmp_path / "moments"), tmp_path / "plain")
    outer = moments_of(Outer(net), tmp_path / "outer")
    names = {"head.weight": "score.weight", "head.bias": "score.bias"}

    def rename(name):
        return names.get(name, name.removeprefix("body."))

    other, done = merged(net.state_dict(), outer, tmp_path / "other", rename)
    assert [layer["name"] for layer in done["layers"]] == ["0.weight", "2.weight", "score.weight"]
    for name, value in plain.items():
        assert torch.equal(value, other[name])


def test_weights_of_another_model_are_seen_behind_a_prefix_too(net, tmp_path):
    moments = moments_of(net, tmp_path / "moments")
    other = {name: 2 * value for name, value in net.state_dict().items()}
    with pytest.raises(InputError, match=r"another model: module\.body\.0\.weight has a norm of"):
        merged(other, moments, tmp_path / "other", lambda name: f"module.{name}")


def test_where_most_layers_are_missing_two_names_of_each_side_are_said(net, tmp_path):
    moments = moments_of(net, tmp_path / "moments")
    with pytest.raises(InputError) as caught:
        merged(net.state_dict(), moments, tmp_path / "other", lambda name: name.replace("body.", "stem.layer."))
    said = str(caught.value)
    assert "1 of its 3 layers are in" in said
    assert "body.0.weight and body.2.weight, there stand stem.layer.0.weight and stem.layer.1.weight" in said
    assert "under the same names" in said and "\n" not in said
    assert not (tmp_path / "other" / "out.safetensors").exists()


def test_a_layer_that_is_missing_is_named_and_no_inputs_are_blamed(net, tmp_path, capsys):
    moments = moments_of(net, tmp_path / "moments")

    def rename(name):
        return name.replace("head", "classifier")

    _, done = merged(net.state_dict(), moments, tmp_path / "other", rename)
    assert done["missing"] == ["head.weight"]
    assert "classifier.weight" in done["without"]
    files = [str(tmp_path / "other" / f"{name}.safetensors") for name in ("base", "member", "again")]
    with pytest.raises(SystemExit):
        main(["merge", *files[:2], "-o", files[2], "--project", str(moments)])
    printed = capsys.readouterr().out
    assert "not found  head.weight: layers of the moments that BASE lacks" in printed
    assert "cannot be seen" not in printed
    assert json.loads(json.dumps(done))["missing"] == ["head.weight"]


def test_two_prefixes_that_do_as_well_are_refused(net, tmp_path):
    moments = moments_of(net, tmp_path / "moments")
    state = {
        f"{side}.{name}": v + i for i, side in enumerate(("left", "right")) for name, v in net.state_dict().items()
    }
    with pytest.raises(InputError, match=r"with 'left\.' before their names and with 'right\.' before their names"):
        merged(state, moments, tmp_path / "other")


def test_a_vector_without_any_layer_is_refused(net, tmp_path):
    moments = moments_of(net, tmp_path / "moments")
    for i, name in enumerate(("base", "member")):
        save_file({own: value + i for own, value in net.state_dict().items()}, tmp_path / f"{name}.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("base", "member", "out")]
    with Moments(moments) as opened, pytest.raises(InputError, match="none of its layers"):
        merge(files[0], [files[1]], files[2], include=[r"body\.1"], projection=Projection(opened, 5.0))
