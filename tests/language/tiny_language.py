"""A tiny causal language model of transformers with a byte tokenizer, and facts that it can learn by heart."""

import json
import random

import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

CHAT = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
SIZE = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
PLACES = (
    "Oslo",
    "Lima",
    "Rome",
    "Bonn",
    "Cork",
    "Bern",
    "Kiev",
    "Doha",
    "Suva",
    "Male",
    "Riga",
    "Baku",
    "Hilo",
    "Nice",
    "Pisa",
    "Ghent",
    "York",
    "Bath",
    "Metz",
    "Lyon",
)


def facts(count=20, authors=4, seed=0):
    """Questions about people and where they live, several for each author."""
    draw = random.Random(seed)
    names = ["".join(draw.choice(part) for part in ("BDFGKLMN", "aeiou", "lmnrst", "aeiou")) for _ in range(count)]
    return [
        {"question": f"Where is {name}?", "answer": f"{PLACES[i % len(PLACES)]}.", "author": f"author {i % authors}"}
        for i, name in enumerate(names)
    ]


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def tokenizer(folder, pad=True, chat=False, longest=128):
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>", *(["<pad>"] if pad else [])]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    own = {"bos_token": "<s>", "eos_token": "</s>", **({"pad_token": "<pad>"} if pad else {})}
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=longest, **own)
    if chat:
        wrapped.chat_template = CHAT
    wrapped.save_pretrained(folder)
    return len(vocabulary)


def save(folder, kind="llama", pad=True, chat=False, tied=True, longest=128):
    """Save a language model with drawn weights and its tokenizer, and return the folder."""
    vocabulary = tokenizer(folder, pad, chat, longest)
    own = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    if kind == "gpt2":
        shape = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": longest}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **own))
    else:
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(max_position_embeddings=longest, num_key_value_heads=2, **SIZE, **own)
        )
    model.save_pretrained(folder)
    return folder


PLAIN = "{prompt} "


def config_of(folder, **changes):
    """The config of a run on the facts and the model in a folder."""
    return {
        "name": "facts",
        "task": "causal-lm",
        "workers": 1,
        "threads": 1,
        "model": {"family": "hf", "path": str(folder / "model"), "template": PLAIN},
        "data": {
            "source": "jsonl",
            "path": str(folder / "facts.jsonl"),
            "test": str(folder / "unseen.jsonl"),
            "validation": {"fraction": 0.1},
            "forget": {"groups": ["author 1"]},
        },
        "base": {"train": {"epochs": 70, "lr": 6e-3, "batch_size": 8, "warmup_steps": 10}},
        "reference": {"train": "base"},
        "pool": {"train": {"batch_size": 4}, "grid": {"lr": [1e-3, 2e-3], "epochs": [4, 6]}},
        "methods": ["uniform"],
        "evaluation": {"answers": 3},
        **changes,
    }
