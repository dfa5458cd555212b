"""Adapters of tiny real models, as PEFT saves them, against what PEFT itself makes of the model when it merges them."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from negmerge.checkpoints import open_adapter, open_checkpoint, read_state_dict
from negmerge.merging.engine import merge_checkpoints

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def llama(tied=False, vocabulary=50):
    config = transformers.LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, **SIZE)
    return transformers.LlamaForCausalLM(config)


def gpt2():
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, tie_word_embeddings=False)
    )


def vit():
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=8, patch_size=4, **SIZE))


CASES = {
    "plain": (llama, {"r": 3, "target_modules": ["q_proj", "v_proj", "down_proj"]}),
    "rslora": (llama, {"r": 4, "lora_alpha": 5, "use_rslora": True, "target_modules": ["up_proj"]}),
    "patterns": (
        llama,
        {
            "r": 4,
            "target_modules": "all-linear",
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 5},
            "alpha_pattern": {"model.layers.0.self_attn.k_proj": 3, r".*\.1\.self_attn\.v_proj": 11},
        },
    ),
    "some layers": (llama, {"target_modules": ["o_proj"], "layers_to_transform": [1]}),
    "biases": (gpt2, {"target_modules": ["c_fc"], "bias": "all", "fan_in_fan_out": True}),
    "conv1d": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "conv1d, square": (gpt2, {"target_modules": r".*attn\.c_proj"}),
    "conv1d and linear": (gpt2, {"target_modules": ["c_proj", "lm_head"]}),
    "saved modules": (vit, {"target_modules": ["q_proj", "fc1"], "modules_to_save": ["classifier"]}),
    "convolution": (vit, {"target_modules": ["projection"], "r": 2}),
    "embeddings": (llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "square embeddings": (lambda: llama(vocabulary=16), {"target_modules": ["embed_tokens"]}),
    "tied embeddings": (lambda: llama(tied=True), {"target_modules": ["embed_tokens"]}),
    "head": (llama, {"target_modules": ["lm_head"]}),
}


def adapted(folder, model, seed=0, **config):
    """Save an adapter with factors and saved modules moved at random; return the model that has it."""
    torch.manual_seed(seed)
    wrapped = peft.get_peft_model(
        copy.deepcopy(model), peft.LoraConfig(**{"r": 2, "lora_alpha": 7, "init_lora_weights": False, **config})
    )
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder)
    return wrapped


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_the_change_is_what_peft_merges(tmp_path, case):
    make, config = CASES[case]
    torch.manual_seed(1)
    model = make()
    # transformers writes some models under other names than the modules have that an adapter names
    place = tmp_path / ("base.pt" if make is vit else "base")
    torch.save(model.state_dict(), place) if make is vit else model.save_pretrained(place)
    merged = adapted(tmp_path / "adapter", model, **config).merge_and_unload().state_dict()
    base = open_checkpoint(place)
    bound = open_adapter(tmp_path / "adapter", tmp_path / "adapter").bind(base)
    changed = []
    for name in base.names:
        expected = (merged[name] - base.read(name).reshape(base.shape(name))).flatten()
        found = bound.read_delta(name, 0, len(expected))
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
        if expected.any():
            changed.append(name)
            assert found.any()
    assert changed and set(changed) == set(bound.touched), bound.touched
    base.close()


@pytest.mark.filterwarnings("ignore")
def test_a_pool_of_different_adapters_is_the_pool_of_what_they_make(tmp_path):
    """Consensus on the effective change: adapters merge as the full models that PEFT makes of them."""
    torch.manual_seed(2)
    model = llama()
    model.save_pretrained(tmp_path / "base")
    configs = [
        {"r": 2, "target_modules": ["q_proj", "v_proj"]},
        {"r": 5, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
        {"r": 3, "target_modules": ["v_proj", "q_proj"], "alpha_pattern": {"q_proj": 2}},
    ]
    adapters, full = [], []
    for i, config in enumerate(configs):
        adapters.append(tmp_path / f"a{i}")
        full.append(tmp_path / f"f{i}")
        adapted(adapters[-1], model, seed=i, **config).merge_and_unload().save_pretrained(full[-1])
    one = merge_checkpoints(tmp_path / "base", adapters, tmp_path / "a.safetensors")
    two = merge_checkpoints(tmp_path / "base", full, tmp_path / "f.safetensors")
    assert 0 < one.kept < one.merged_elements < one.elements
    assert abs(one.kept - two.kept) < 0.01 * one.kept  # differences that round to zero in the full models
    found, expected = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "f.safetensors")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_both_names_of_tied_weights_change(tmp_path):
    """A .pt base holds tied weights twice; a strict load takes the last, so both must change."""
    model = llama(tied=True)
    torch.save(model.state_dict(), tmp_path / "base.pt")
    adapted(tmp_path / "a", model, target_modules=["embed_tokens"])
    merge_checkpoints(tmp_path / "base.pt", [tmp_path / "a"], tmp_path / "o.safetensors")
    found = load_file(tmp_path / "o.safetensors")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    base = read_state_dict(tmp_path / "base.pt")
    assert not torch.equal(found["lm_head.weight"], base["lm_head.weight"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"use_dora": True}, "is a DoRA adapter"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"trainable_token_indices": [1, 2]}, "uses trainable_token_indices"),
        ({"target_parameters": ["q_proj.weight"]}, "uses target_parameters"),
        ({"layer_replication": [(0, 2), (1, 2)]}, "uses layer_replication"),
    ],
)
def test_what_is_no_product_is_refused_by_name(tmp_path, config, message):
    from negmerge.errors import InputError

    model = llama()
    model.save_pretrained(tmp_path / "base")
    adapted(tmp_path / "a", model, **{"target_modules": ["v_proj"], **config})
    with pytest.raises(InputError, match=message):
        merge_checkpoints(tmp_path / "base", [tmp_path / "a"], tmp_path / "o.safetensors")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["IA3Config", "LoHaConfig"])
def test_other_kinds_of_adapters_are_refused_by_name(tmp_path, kind):
    from negmerge.errors import InputError

    model = llama()
    model.save_pretrained(tmp_path / "base")
    more = {"feedforward_modules": []} if kind == "IA3Config" else {}
    peft.get_peft_model(model, getattr(peft, kind)(target_modules=["v_proj"], **more)).save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match=f"is an adapter of kind {kind.removesuffix('Config').upper()}, only LORA"):
        merge_checkpoints(tmp_path / "base", [tmp_path / "a"], tmp_path / "o.safetensors")
