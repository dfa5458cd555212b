"""A pool of whole models written as one adapter: PEFT loads it, and it is the merged change but for what is named."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from adapters import gpt2, llama, peft, transformers, vit
from negmerge import merge_as_adapter
from negmerge.checkpoints import read_state_dict, write_state_dict
from negmerge.errors import InputError
from negmerge.merging.engine import merge_checkpoints, merge_vector
from negmerge.merging.output.verifying import read_record, verify_model

pytestmark = pytest.mark.filterwarnings("ignore")


def tied_gpt2():
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config)


MODELS = {
    "llama": llama,
    "llama, tied": lambda: llama(tied=True),
    "gpt2": gpt2,
    "gpt2, tied": tied_gpt2,
    "vit": vit,
}


def tuned(model, folder, seed):
    """Save a model with every parameter moved."""
    torch.manual_seed(100 + seed)
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    save(moved, folder)


def save(model, folder):
    """Save a model as a folder; a ViT under the names of its modules, which transformers 5 renames in its folders."""
    if isinstance(model, transformers.ViTForImageClassification):
        write_state_dict(folder, model.state_dict())
    else:
        model.save_pretrained(folder)


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Of each model: itself, the folder of it, and those of two fine-tuned ones."""
    found = {}
    for name, make in MODELS.items():
        place = tmp_path_factory.mktemp("models")
        torch.manual_seed(3)
        model = make()
        save(model, place / "base")
        for i in range(2):
            tuned(model, place / f"m{i}", i)
        found[name] = model, place / "base", [place / "m0", place / "m1"]
    return found


def loaded(model, folder):
    """The state of a model onto which PEFT has loaded an adapter and merged it."""
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), folder).merge_and_unload().state_dict()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("add", [False, True])
def test_peft_loads_what_the_full_merge_gives(pools, tmp_path, name, add):
    model, base, members = pools[name]
    report = merge_as_adapter(base, members, tmp_path / "one", 48, alpha=0.7, add=add)
    merge_checkpoints(base, members, tmp_path / "full.safetensors", alpha=0.7, add=add)
    found, expected = loaded(model, tmp_path / "one"), load_file(tmp_path / "full.safetensors")
    left = [key for key in expected if key in report.left_out]
    assert bool(left) == (name == "vit")  # its class token and position embeddings are parameters of no layer
    for key, value in expected.items():
        if key in left:
            assert torch.equal(found[key], model.state_dict()[key])
        else:
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)
    if "tied" in name:
        head, table = ("lm_head.weight", next(key for key in found if "embed_tokens" in key or "wte" in key))
        assert torch.equal(found[head], found[table]) and table in report.whole
    assert verify_model(tmp_path / "one").count >= 4


def test_the_error_counts_what_the_rank_and_what_no_layer_holds(pools, tmp_path):
    _, base, members = pools["vit"]
    report = merge_as_adapter(base, members, tmp_path / "one", 2)
    merge_vector(base, members, tmp_path / "tau.safetensors")
    tail = lost = total = 0.0
    for name, tau in load_file(tmp_path / "tau.safetensors").items():
        squared = float(tau.double().square().sum())
        total += squared
        if name in report.left_out:
            lost += squared
        elif name not in report.whole:
            tail += float((torch.linalg.svdvals(tau.double().flatten(1)) ** 2)[2:].sum())
    assert report.left_out_share == pytest.approx(lost / total, rel=1e-6) and lost > 0
    assert report.error == pytest.approx(math.sqrt((tail + lost) / total), rel=1e-4)
    record, card = read_record(tmp_path / "one"), (tmp_path / "one" / "README.md").read_text()
    assert record["adapter_left_out"] == list(report.left_out) and record["adapter_error"] == report.error
    assert f"this {100 * lost / total:.2f} % of the squared change is left out whole" in card
    assert report.as_json()["adapter_left_out"] == list(report.left_out)


def test_the_config_names_layers_and_saved_modules(pools, tmp_path):
    _, base, members = pools["gpt2"]
    report = merge_as_adapter(base, members, tmp_path / "one", 3)
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM" and config["fan_in_fan_out"] and config["bias"] == "all"
    assert config["base_model_name_or_path"] == str(base) and config["r"] == config["lora_alpha"] == 3
    assert "transformer.h.0.attn.c_attn" in config["target_modules"] and "lm_head" in config["target_modules"]
    assert {"transformer.wte", "transformer.wpe", "transformer.ln_f"} <= set(config["modules_to_save"])
    assert "transformer.h.0.attn.c_attn.bias" in report.whole and report.left_out == ()


def test_origin_weights_and_adapters_in_one_pool(pools, tmp_path):
    """Vectors of another model, multiplied by weights, give the adapter of the full merge of them."""
    model, base, members = pools["llama"]
    weights = {name: torch.rand_like(value) for name, value in read_state_dict(base).items()}
    write_state_dict(tmp_path / "w.safetensors", weights)
    how = {"origin": members[0], "weights": tmp_path / "w.safetensors", "method": "task-arithmetic"}
    merge_as_adapter(base, members[1:], tmp_path / "one", 48, **how)
    merge_checkpoints(base, members[1:], tmp_path / "full.safetensors", **how)
    found, expected = loaded(model, tmp_path / "one"), load_file(tmp_path / "full.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)
    merge_as_adapter(base, members, tmp_path / "two", 48, method="uniform")
    merge_as_adapter(base, [tmp_path / "two", members[0]], tmp_path / "both", 48, method="uniform")
    merge_checkpoints(base, [tmp_path / "two", members[0]], tmp_path / "sum.safetensors", method="uniform")
    found, expected = loaded(model, tmp_path / "both"), load_file(tmp_path / "sum.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


def test_convolutions_and_batch_norm(tmp_path):
    """A network without a config: grouped to a channel each, a convolution is written whole."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(32, 5)
    )
    write_state_dict(tmp_path / "base.safetensors", model.state_dict())
    moved = {k: v + 0.1 * torch.randn_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    write_state_dict(tmp_path / "m.safetensors", moved)
    base, members = tmp_path / "base.safetensors", [tmp_path / "m.safetensors"]
    report = merge_as_adapter(base, members, tmp_path / "one", 30)
    assert "2.weight" in report.whole and "0.weight" not in report.whole and report.left_out == ()
    merge_checkpoints(base, members, tmp_path / "full.safetensors")
    found, expected = loaded(model, tmp_path / "one"), load_file(tmp_path / "full.safetensors")
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


def test_a_pool_without_a_matrix_is_refused(pools, tmp_path):
    _, base, members = pools["llama"]
    with pytest.raises(InputError, match="none of the 5 merged tensors is a matrix that can be factored"):
        merge_as_adapter(base, members, tmp_path / "one", 4, include=["norm"])
    assert list(tmp_path.iterdir()) == []
