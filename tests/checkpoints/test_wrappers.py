"""Names that differ by wrappers: what is taken off, what is not, and that no name is matched in two ways."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from negmerge.checkpoints import open_checkpoint, write_state_dict
from negmerge.checkpoints.wrappers import matched, renamed
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts
from pools import drift, make_state

BASE = ("conv.weight", "layers.0.weight", "layers.1.weight")


def before(prefix, names=BASE):
    return tuple(prefix + name for name in names)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "model.", "net.", "network.",
     "module.module.", "module._orig_mod.", "_orig_mod.module.", "module.model._orig_mod.net._fsdp_wrapped_module."],
)  # fmt: skip
def test_a_prefix_that_all_names_of_one_side_carry_is_taken_off(prefix):
    assert matched(BASE, before(prefix), "m") == dict(zip(before(prefix), BASE, strict=True))
    assert matched(before(prefix), BASE, "m") == dict(zip(BASE, before(prefix), strict=True))
    other = before("net._orig_mod.")
    assert matched(before(prefix), other, "m") in ({}, dict(zip(other, before(prefix), strict=True)))


def test_wrappers_inside_names_need_not_be_in_all():
    names = (
        "conv.weight",
        "layers.0._orig_mod.weight",
        "layers._fsdp_wrapped_module.1._checkpoint_wrapped_module.weight",
    )
    assert matched(BASE, names, "m") == dict(zip(names, BASE, strict=True))
    assert matched(names, BASE, "m") == dict(zip(BASE, names, strict=True))
    parallel = ("conv.weight", "layers.module.0.weight", "layers.module.1.weight")
    assert matched(BASE, parallel, "m") == dict(zip(parallel, BASE, strict=True))


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (BASE, BASE),
        (before("model."), before("model.")),
        (BASE, before("backbone.")),  # no wrapper's attribute: it is named in the message, not taken off
        (BASE, (*before("model."), "loss.weight")),  # not all names carry it
        (BASE, ("other.weight",)),
        (before("_orig_mod."), before("_orig_mod.")[:2]),  # equal as far as they go
        (("fc.weight", "model.fc.weight"), ("model.fc.weight",)),  # as they stand is never worse
    ],
)
def test_what_is_not_taken_off(wanted, names):
    assert matched(wanted, names, "m") == {}


def test_real_names_of_models_stay():
    """All names of a tied LlamaForCausalLM begin with `model.`, and a wrapper puts another before them."""
    tied = before("model.")
    trained = (*before("model.", tied), "model.lm_head.weight")
    found = matched(tied, trained, "m")
    assert [found[name] for name in trained] == [*tied, "lm_head.weight"]
    bare = (*BASE, "pooler.weight")
    assert list(matched(tied, bare, "m").values()) == [*tied, "model.pooler.weight"]


@pytest.mark.parametrize(
    ("wanted", "names", "both"),
    [
        (("a", "b", "c"), ("_orig_mod.a", "a", "_orig_mod.b"), "_orig_mod.a and a are one name"),
        (("a", "_orig_mod.a", "b"), ("a", "_orig_mod.b"), "a and _orig_mod.a are one name"),
        (
            ("a", "model.a", "model.model.a"),
            ("model.model.model.a", "model.model.a"),
            "model.model.model.a can stand for model.a and for model.model.a",
        ),
        (("a", "b", "model.q"), ("model.a", "model.b", "model.q"), "model.q and the others carry different wrappers"),
    ],
)
def test_two_ways_are_an_error_that_names_both(wanted, names, both):
    with pytest.raises(InputError, match=f"^m: {both}"):
        matched(wanted, names, "m")


def test_a_second_copy_behind_a_wrapper_is_an_error(tmp_path):
    base = make_state(0)
    write_state_dict(tmp_path / "base.safetensors", base)
    member = drift(base, 1)
    save_file({**member, "_orig_mod.scale": member["scale"] + 1}, tmp_path / "m.safetensors")
    opened = [open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "m")]
    with pytest.raises(InputError, match=r"m\.safetensors: scale and _orig_mod\.scale are one name without wrappers"):
        renamed(*opened)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 4))
        self.head = torch.nn.Linear(4, 2, bias=False)
        self.tied = self.head


def as_saved(way, net):
    """What torch's own wrappers make of a model's names."""
    if way == "averaged":
        return torch.optim.swa_utils.AveragedModel(net).state_dict()
    if way == "parallel":
        return torch.nn.DataParallel(net).state_dict()
    if way == "parallel features":
        net.features = torch.nn.DataParallel(net.features)
        return net.state_dict()
    net.features = checkpoint_wrapper(net.features)
    return dict(net.named_parameters()) | {"tied.weight": net.head.weight}


@pytest.mark.parametrize("way", ["averaged", "parallel", "parallel features", "checkpointed"])
def test_the_names_that_wrappers_of_torch_give_are_matched(tmp_path, way):
    nets = [Net() for _ in range(3)]
    states = [{name: value.detach().clone() for name, value in net.state_dict().items()} for net in nets]
    saved = [as_saved(way, net) for net in nets]
    assert set(saved[0]) != set(states[0])
    expected = merge_state_dicts(states[0], states[1:], alpha=0.5)
    plain = tmp_path / "base.pt"
    torch.save(states[0], plain)
    for i, state in enumerate(saved):
        torch.save(state, tmp_path / f"{i}.pt")
    merge_checkpoints(plain, [tmp_path / "1.pt", tmp_path / "2.pt"], tmp_path / "o.safetensors", alpha=0.5)
    found = load_file(tmp_path / "o.safetensors")
    assert set(found) <= set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert {"features.0.weight", "head.weight"} <= set(found)


def test_out_keeps_the_names_of_a_wrapped_base_and_patterns_match_them(tmp_path):
    base = {f"module.{name}": value for name, value in make_state(0).items()}
    save_file(base, tmp_path / "base.safetensors")
    write_state_dict(tmp_path / "m.safetensors", drift(make_state(0), 1))
    inputs = tmp_path / "base.safetensors", [tmp_path / "m.safetensors"]
    merge_checkpoints(*inputs, tmp_path / "o.safetensors", include=[r"^module\.stem"])
    found = load_file(tmp_path / "o.safetensors")
    assert set(found) == set(base)
    changed = {name for name in base if not torch.equal(base[name], found[name])}
    assert changed == {"module.stem.weight", "module.stem.bias"}


def test_an_adapter_finds_its_places_in_a_wrapped_base(tmp_path):
    a, b = torch.randn(2, 5), torch.randn(7, 2)
    (tmp_path / "a").mkdir()
    save_file(
        {"base_model.model.stem.lora_A.weight": a, "base_model.model.stem.lora_B.weight": b},
        tmp_path / "a" / "adapter_model.safetensors",
    )
    (tmp_path / "a" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    weight = torch.randn(7, 5)
    torch.save({"net.stem._orig_mod.weight": weight}, tmp_path / "base.ckpt")
    merge_checkpoints(tmp_path / "base.ckpt", [tmp_path / "a"], tmp_path / "o.safetensors", method="uniform", add=True)
    found = load_file(tmp_path / "o.safetensors")
    torch.testing.assert_close(found["net.stem._orig_mod.weight"], weight + b @ a)
