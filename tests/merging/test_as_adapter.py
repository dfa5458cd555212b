"""A pool of adapters written as one: PEFT loads it, and it is the merged change but for what the rank leaves out."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from adapters import CASES, adapted, llama, peft, vit
from negmerge import merge_as_adapter
from negmerge.checkpoints import read_state_dict
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints, merge_vector
from negmerge.merging.output.verifying import read_record, verify_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def pool(tmp_path):
    """Give a tiny Llama, the folder of it and of three adapters with different ranks and targets."""
    torch.manual_seed(2)
    model = llama()
    model.save_pretrained(tmp_path / "base")
    targets = (["q_proj", "v_proj"], ["q_proj", "v_proj"], ["v_proj", "q_proj", "up_proj"])
    for i, wanted in enumerate(targets):
        adapted(tmp_path / f"a{i}", model, seed=i, r=i + 2, target_modules=wanted)
    return model, tmp_path / "base", [tmp_path / f"a{i}" for i in range(3)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("add", [False, True])
def test_peft_loads_what_the_full_merge_gives(tmp_path, case, add):
    make, config = CASES[case]
    torch.manual_seed(1)
    model = make()
    place = tmp_path / ("base.pt" if make is vit else "base")
    torch.save(model.state_dict(), place) if make is vit else model.save_pretrained(place)
    members = [tmp_path / "a", tmp_path / "b"]
    for seed, member in enumerate(members):
        adapted(member, model, seed=seed, **config)
    report = merge_as_adapter(place, members, tmp_path / "one", 16, alpha=0.7, add=add)
    merge_checkpoints(place, members, tmp_path / "full.safetensors", alpha=0.7, add=add)
    assert 0 <= report.error < 1e-5 and 0 < report.kept < report.merged_elements

    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "one").merge_and_unload().state_dict()
    expected = load_file(tmp_path / "full.safetensors")
    base = read_state_dict(place)
    assert any(not torch.equal(expected[name], base[name]) for name in expected)
    for name in expected:
        torch.testing.assert_close(loaded[name], expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_error_is_that_of_the_tail_of_singular_values(pool, tmp_path, rank):
    _, base, members = pool
    report = merge_as_adapter(base, members, tmp_path / "one", rank)
    merge_vector(base, members, tmp_path / "tau.safetensors")
    tail, total = 0.0, 0.0
    for tau in load_file(tmp_path / "tau.safetensors").values():
        squares = torch.linalg.svdvals(tau.double()) ** 2
        total += float(squares.sum())
        tail += float(squares[rank:].sum())
    assert report.rank == rank
    assert report.error == pytest.approx(math.sqrt(tail / total), rel=1e-4)
    assert report.error > 0.1
    card = (tmp_path / "one" / "README.md").read_text()
    assert f"{100 * report.error:.2f} % in all" in card and "| `model.layers.0.self_attn.q_proj.weight` |" in card
    assert read_record(tmp_path / "one")["adapter_error"] == report.error


def test_what_is_written_is_a_member_and_can_be_verified(pool, tmp_path):
    """Merging the written adapter alone gives the change that it stands for; a changed byte is found."""
    _, base, members = pool
    merge_as_adapter(base, members, tmp_path / "one", 16)
    assert verify_model(tmp_path / "one").count == 4
    merge_checkpoints(base, [tmp_path / "one"], tmp_path / "again.safetensors", method="uniform", add=True)
    merge_checkpoints(base, members, tmp_path / "full.safetensors")
    again, full = load_file(tmp_path / "again.safetensors"), load_file(tmp_path / "full.safetensors")
    for name in full:
        torch.testing.assert_close(again[name], full[name], atol=2e-6, rtol=1e-5)

    weights = tmp_path / "one" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match="it was changed"):
        verify_model(tmp_path / "one")


def test_the_same_inputs_give_the_same_bytes_and_out_is_replaced_only_where_asked(pool, tmp_path):
    _, base, members = pool
    merge_as_adapter(base, members, tmp_path / "one", 2, workers=1)
    first = {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}
    assert sorted(first) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(InputError, match="exists; choose another OUT"):
        merge_as_adapter(base, members, tmp_path / "one", 2)
    merge_as_adapter(base, members[::-1], tmp_path / "one", 2, workers=3, overwrite=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()} == first


def test_the_config_says_what_the_members_agree_on(pool, tmp_path):
    _, base, members = pool
    for member, task in zip(members, ("CAUSAL_LM", "CAUSAL_LM", None), strict=True):
        config = json.loads((member / "adapter_config.json").read_text())
        config |= {"base_model_name_or_path": "org/other", "task_type": task}
        (member / "adapter_config.json").write_text(json.dumps(config))
    report = merge_as_adapter(base, members, tmp_path / "one", 3)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/other" and config["task_type"] is None
    assert config["r"] == config["lora_alpha"] == 3 and not config["fan_in_fan_out"]
    assert len(config["target_modules"]) == 6  # q, v and up of both layers
    declared, targets, chance = report.warnings[:3], report.warnings[3:4], report.warnings[4:]
    assert all("says that it was trained on org/other" in line for line in declared)
    assert len(targets) == 1 and "targets of some members only" in targets[0]
    (line,) = chance  # they were drawn, not trained
    assert "is not clearly above the 25.0 % of independent signs" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank must be a whole number from 1 on, got 0"),
        ({"output": "one.safetensors"}, "an adapter is a folder"),
        ({"alpha": 1e39}, "leaves the range of float32"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(pool, tmp_path, change, message):
    _, base, members = pool
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        merge_as_adapter(
            base, members, tmp_path / change.get("output", "one"), change.get("rank", 4), alpha=change.get("alpha", 1.0)
        )
    assert sorted(tmp_path.iterdir()) == before
