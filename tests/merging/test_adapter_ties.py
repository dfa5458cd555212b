"""Adapters of tied models against what PEFT makes of them, and the targets that only some members have."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from adapters import adapted, gpt2, llama, peft, transformers
from negmerge.checkpoints import write_state_dict
from negmerge.errors import InputError
from negmerge.merging.as_adapter import merge_as_adapter
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.inspecting import inspect_checkpoints
from pools import of_the_fit

pytestmark = pytest.mark.filterwarnings("ignore")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
SAVED = {
    "embedding": {"modules_to_save": ["embed_tokens"]},
    "head": {"modules_to_save": ["lm_head"]},
    "both": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "both, tied": {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "embedding, tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "factors of the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "factors of the head": {"target_modules": ["q_proj", "lm_head"]},
    "factors beside a saved head": {"target_modules": ["q_proj", "embed_tokens"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A tied model and its folder, and a `.bin` that holds both names."""
    torch.manual_seed(0)
    model, folder = llama(tied=True), tmp_path_factory.mktemp("tied")
    model.save_pretrained(folder / "once")
    (folder / "bin").mkdir()
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(folder / "bin")
    torch.save(model.state_dict(), folder / "bin" / "pytorch_model.bin")
    return model, folder


@pytest.mark.parametrize("base", ["once", "bin"])
@pytest.mark.parametrize("case", SAVED)
def test_out_is_what_peft_makes_of_an_adapter_of_a_tied_model(tied, tmp_path, case, base):
    model, folder = tied
    adapted(tmp_path / "a", model, **{"target_modules": ["q_proj"], **SAVED[case]})
    made = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "a").merge_and_unload()
    report = merge_checkpoints(folder / base, [tmp_path / "a"], tmp_path / "out", method="uniform", add=True)
    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out")
    for name, value in made.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, atol=2e-6, rtol=1e-5)
    apart = not torch.equal(made.lm_head.weight, made.model.embed_tokens.weight)
    says = json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"]
    assert says is not apart
    assert apart == any("unties lm_head.weight" in line for line in report.warnings)


@pytest.mark.parametrize("case", [name for name in SAVED if "beside" not in name])
def test_one_adapter_is_what_the_merged_model_is(tied, tmp_path, case):
    model, folder = tied
    config = {"target_modules": ["q_proj"], **SAVED[case]}
    paths = [tmp_path / f"a{i}" for i in range(2)]
    for i, path in enumerate(paths):
        adapted(path, model, seed=i, **config)
    merge_checkpoints(folder / "once", paths, tmp_path / "out", method="uniform")
    merge_as_adapter(folder / "once", paths, tmp_path / "one", 16, method="uniform")
    whole = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    made = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "one").merge_and_unload().state_dict()
    for name in (HEAD, EMBEDDING):
        torch.testing.assert_close(made[name], whole[name], atol=1e-5, rtol=1e-4)


def test_two_factors_of_one_tensor_are_refused(tied, tmp_path):
    model, folder = tied
    adapted(tmp_path / "a", model, target_modules=["embed_tokens", "lm_head"])
    with pytest.raises(InputError, match="one tensor in the base and have different factors"):
        merge_checkpoints(folder / "once", [tmp_path / "a"], tmp_path / "out")


def test_a_head_that_cannot_be_named_is_refused(tied, tmp_path):
    model, folder = tied
    adapted(tmp_path / "a", model, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    other = tmp_path / "other"
    other.mkdir()
    config = json.loads((folder / "once" / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "architectures": ["NoSuchModel"]}))
    (other / "model.safetensors").write_bytes((folder / "once" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"replaces model.embed_tokens.weight.*has no class NoSuchModel; install"):
        merge_checkpoints(other, [tmp_path / "a"], tmp_path / "out")
    merge_checkpoints(other, [tmp_path / "a"], tmp_path / "out", exclude=["embed_tokens"])
    assert list(load_file(tmp_path / "out" / "model.safetensors")).count(HEAD) == 0


def test_exclude_lets_a_tensor_of_an_adapter_pass_that_does_not_fit(tied, tmp_path):
    _, folder = tied
    longer = llama(tied=True, vocabulary=52)
    adapted(tmp_path / "a", longer, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    with pytest.raises(InputError, match=r"embed_tokens.weight has shape \[52, 16\]"):
        merge_checkpoints(folder / "once", [tmp_path / "a"], tmp_path / "out")
    report = merge_checkpoints(folder / "once", [tmp_path / "a"], tmp_path / "out", exclude=["embed_tokens"])
    assert report.merged_elements == 2 * 16 * 16


def test_targets_of_some_members_are_named_and_not_counted(tmp_path):
    torch.manual_seed(1)
    model = gpt2()
    model.save_pretrained(tmp_path / "base")
    targets = (["c_fc"], ["c_fc"], ["c_fc", "c_attn"])
    paths = [tmp_path / f"a{i}" for i in range(3)]
    for i, path in enumerate(paths):
        adapted(path, model, seed=i, target_modules=targets[i], fan_in_fan_out=True)
    report = merge_checkpoints(tmp_path / "base", paths, tmp_path / "out")
    same = merge_checkpoints(tmp_path / "base", paths, tmp_path / "same", include=["c_fc"])
    found = inspect_checkpoints(tmp_path / "base", paths)
    expected = (
        "2 of 4 merged tensors are targets of some members only (transformer.h.0.attn.c_attn.weight by 1 of 3, "
        "transformer.h.1.attn.c_attn.weight by 1 of 3)"
    )
    assert [line for line in report.warnings if line.startswith(expected)]
    assert [line for line in found.warnings if line.startswith(expected)]
    assert of_the_fit(same.warnings) == []
    assert report.consensus == same.consensus == found.consensus == same.kept / same.merged_elements
    assert (
        report.common_elements == same.merged_elements and report.merged_elements == 2 * same.merged_elements * 7 // 8
    )
    assert found.zero_share == 0.0
    assert {tensor["name"][-13:]: tensor["members"] for tensor in found.as_json()["tensors"]} == {
        "c_attn.weight": 1, "p.c_fc.weight": 3,
    }  # fmt: skip
    assert not any("its adapter is taken" in line for line in report.warnings)
    model.save_pretrained(paths[1])  # a whole model beside the adapter
    note = f"{paths[1]}: its adapter is taken, not model.safetensors; to take the model, give it a folder of its own"
    assert note in inspect_checkpoints(tmp_path / "base", paths).warnings
    with pytest.raises(InputError, match=r"a0 is an adapter of other tensors than those that merge; widen include"):
        merge_checkpoints(tmp_path / "base", paths, tmp_path / "none", include=["c_attn"])
    base, out = (load_file(tmp_path / place / "model.safetensors") for place in ("base", "out"))
    name = "transformer.h.0.attn.c_attn.weight"
    assert torch.equal(out[name], base[name])  # two members change it by 0, which vetoes


def test_a_full_member_beside_an_adapter_does_not_dilute_the_share(tied, tmp_path):
    model, folder = tied
    adapted(tmp_path / "a", model, target_modules=["q_proj"])
    state = {name: value + 0.1 for name, value in load_file(folder / "once" / "model.safetensors").items()}
    write_state_dict(tmp_path / "full.safetensors", state)
    report = merge_checkpoints(folder / "once", [tmp_path / "a", tmp_path / "full.safetensors"], tmp_path / "out")
    assert report.common_elements == 2 * 16 * 16 < report.merged_elements == report.elements
    assert report.consensus == report.common_kept / report.common_elements > 0.3
