"""Only what merges must fit: all other tensors pass through from the base, whatever the members have there."""

import re

import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints, merge_state_dicts
from negmerge.merging.inspecting import inspect_checkpoints

NAN = float("nan")
# Tensors that never merge, as transformers, timm and torch save them in some versions only.
NEVER = {
    "bn.num_batches_tracked": torch.tensor(3),
    "bn.running_var": torch.rand(4) + 0.5,
    "text_model.embeddings.position_ids": torch.arange(5)[None],
    "h.0.attn.masked_bias": torch.tensor(-1e4),
    "h.0.attn.bias": torch.ones(5, 5).tril()[None, None],
    "layers.0.self_attn.rotary_emb.inv_freq": torch.rand(4),
    "layers.1.blocks.1.attn_mask": torch.zeros(2, 3, 3),
    "flags": torch.tensor([True, False]),
}
CHANGES = {
    "lacks it": lambda value: None,
    "has the same": lambda value: value,
    "has another shape": lambda value: torch.stack([value, value]),
    "has another dtype": lambda value: value.double() + 1,
    "has NaN": lambda value: torch.full(value.shape, NAN),
}


def members_of(base, count=2):
    """State dicts with every tensor that merges moved."""
    g = torch.Generator().manual_seed(5)
    return [{k: v if k in NEVER else v + torch.randn(v.shape, generator=g) for k, v in base.items()} for _ in "ab"]


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {"w": torch.randn(4, 4), "attn.bias": torch.randn(4), "h.0.bias": torch.randn(1, 1, 3, 2)}


@pytest.mark.parametrize("change", CHANGES)
def test_what_never_merges_passes_through_whatever_members_have_there(weights, change):
    base = {**weights, **NEVER}
    members = members_of(base)
    for name, value in NEVER.items():
        changed = CHANGES[change](value)
        if changed is None:
            del members[0][name]
        else:
            members[0][name] = changed
    found = merge_state_dicts(base, members, method="uniform", add=True)
    for name, value in NEVER.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype
    for name, value in weights.items():
        torch.testing.assert_close(found[name], (members[0][name] + members[1][name]) / 2)
        assert not torch.equal(found[name], value)


def test_what_never_merges_may_be_in_members_alone(weights):
    members = members_of({**weights, **NEVER})
    assert set(merge_state_dicts(weights, members)) == set(weights)


OTHER = {
    "another shape": {"embed": torch.ones(6, 4)},
    "an integer": {"embed": torch.ones(5, 4, dtype=torch.int64)},
    "NaN": {"embed": torch.full((5, 4), NAN)},
    "missing": {},
    "one more": {"embed": torch.ones(5, 4), "embed.more": torch.ones(2)},
}


@pytest.mark.parametrize("request_", [{"exclude": ["embed"]}, {"include": ["^w$", "bias"]}])
@pytest.mark.parametrize("other", OTHER)
def test_patterns_decide_before_the_fit_is_judged(weights, other, request_):
    base = {**weights, "embed": torch.randn(5, 4)}
    members = [{**member, **OTHER[other]} for member in members_of(weights)]
    found = merge_state_dicts(base, members, method="uniform", add=True, **request_)
    assert set(found) == set(base) and torch.equal(found["embed"], base["embed"])
    torch.testing.assert_close(found["w"], (members[0]["w"] + members[1]["w"]) / 2)


def test_a_pattern_may_name_what_only_a_member_has_or_what_never_merges(weights):
    base = {**weights, **NEVER}
    members = members_of(base)
    members[1]["value_head.weight"] = torch.ones(3, 3)
    found = merge_state_dicts(base, members, exclude=["position_ids", "^value_head", "running_var"])
    assert set(found) == set(base)
    with pytest.raises(InputError, match=r"--exclude 'nowhere' is found in none of the 12 names of base and members"):
        merge_state_dicts(base, members, exclude=["nowhere"])
    with pytest.raises(InputError, match=r"exclude must be a list of texts, got 'embed'"):
        merge_state_dicts(base, members, exclude="embed")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("model.layers.0.up.weight"),
        lambda state: state.update({"model.layers.1.up.weight": torch.ones(2, 2)}),
        lambda state: state.update({"model.layers.1.score-head": torch.ones(2)}),
        lambda state: state.update({"model.layers.0.up.weight": torch.ones(3, 3, dtype=torch.int32)}),
    ],
)
def test_a_refusal_says_which_exclude_would_let_it_pass(weights, change):
    base = {**weights, **{f"model.layers.{i}.up.weight": torch.randn(3, 3) for i in range(2)}}
    members = members_of(base)
    change(members[1])
    with pytest.raises(InputError, match=r"1 tensors do not fit the base.*--exclude") as caught:
        merge_state_dicts(base, members)
    pattern = re.search(r"--exclude '(.*?)'", str(caught.value))[1]
    assert r"\d+" in pattern
    found = merge_state_dicts(base, members, exclude=[pattern])
    assert set(found) == set(base)
    untouched = torch.equal(found["model.layers.0.up.weight"], base["model.layers.0.up.weight"])
    assert untouched == ("up" in pattern)


def test_nan_of_the_base_passes_through_byte_for_byte_with_a_warning(tmp_path, weights):
    bad = torch.randn(4)
    bad.view(torch.int32)[1] = 0x7FC12345  # NaN with a payload
    base = {**weights, "bn.running_var": bad, "ema": torch.tensor([float("inf"), 1.0])}
    write_state_dict(tmp_path / "base.safetensors", base)
    for i, member in enumerate(members_of(weights)):
        write_state_dict(tmp_path / f"m{i}.safetensors", member)
    members = [tmp_path / "m0.safetensors", tmp_path / "m1.safetensors"]
    report = merge_checkpoints(tmp_path / "base.safetensors", members, tmp_path / "o.safetensors", exclude=["ema"])
    found = load_file(tmp_path / "o.safetensors")
    assert torch.equal(found["bn.running_var"].view(torch.int32), bad.view(torch.int32))
    assert [line.split("tensor ")[1] for line in report.warnings] == [
        "bn.running_var holds NaN or Inf and passes through as it is",
        "ema holds NaN or Inf and passes through as it is",
    ]
    base["bn.running_var"] = torch.tensor([1.0, NAN, 1e6, 2.0])
    write_state_dict(tmp_path / "base.safetensors", base)
    with pytest.raises(InputError, match=r"tensor bn.running_var leaves the range of float16"):
        merge_checkpoints(
            tmp_path / "base.safetensors", members, tmp_path / "p.safetensors", exclude=["ema"], dtype="float16"
        )


MODULE = torch.nn.Linear(2, 2)
STATE = MODULE.state_dict()
WRONG = {
    "a module as the base": ((MODULE, [STATE]), r"base is of type Linear, not a state dict; pass its state_dict\(\)"),
    "a module as a member": ((STATE, [STATE, MODULE]), r"members\[1\] is of type Linear, not a state dict"),
    "one state dict": ((STATE, STATE), r"members is of type OrderedDict, not a list of state dicts"),
    "one module": ((STATE, MODULE), r"members is of type Linear, not a list of state dicts"),
    "no members": ((STATE, []), r"the pool is empty"),
    "no list": ((STATE, None), r"members is of type NoneType, not a list"),
    "a number in a state dict": ((STATE, [{**STATE, "epoch": 3}]), r"members\[0\]: epoch is of type int, not a tensor"),
    "a number as a name": (({1: torch.ones(1)}, [STATE]), r"base has a key that is of type int, not a name"),
    "twice": ((STATE, [STATE, STATE]), r"a member is given twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_state_dicts_that_are_none_are_one_clear_error(case):
    arguments, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        merge_state_dicts(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("members", ["m.safetensors", "path", [], {"a": 1}, [STATE], None])
def test_paths_that_are_none_are_one_clear_error(tmp_path, members):
    write_state_dict(tmp_path / "b.safetensors", STATE)
    given = tmp_path / "m.safetensors" if members == "path" else members
    calls = [
        lambda: merge_checkpoints(tmp_path / "b.safetensors", given, tmp_path / "o.safetensors"),
        lambda: inspect_checkpoints(tmp_path / "b.safetensors", given),
    ]
    for call in calls:
        with pytest.raises(InputError, match=r"^(members|the pool is empty)") as caught:
            call()
        assert "\n" not in str(caught.value)
