"""Tiny real models, and adapters of them of every shape, as PEFT saves them."""

import copy

import pytest
import torch

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
