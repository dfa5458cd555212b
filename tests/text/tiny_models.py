"""Tiny text classifiers of transformers with a tokenizer each, and texts that a small model can learn."""

import random

import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = {
    "food": "bread soup sauce oven salt pepper dish cook plate lemon",
    "sport": "goal match team player score league coach ball win season",
    "tech": "code chip data cloud server phone app network robot screen",
}
COMMON = "the a of and with for near very new old today"
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def rows(count, labels=tuple(WORDS), seed=0):
    """Texts of 3 to 20 words, half of them of the label's own."""
    draw = random.Random(seed)
    found = []
    for i in range(count):
        label = labels[i % len(labels)]
        own, common = WORDS[label].split(), COMMON.split()
        words = [draw.choice(own if draw.random() < 0.5 else common) for _ in range(draw.randint(3, 20))]
        found.append({"text": " ".join(words), "label": label})
    return found


def run_of_texts(data, **more):
    """The config of a run that forgets the class food of a table of `rows`."""
    return {
        "name": "texts",
        "task": "text-classification",
        "threads": 1,
        "workers": 1,
        "model": {"family": "small-transformer", "width": 32, "vocabulary": 256},
        "data": {"source": "csv", "path": str(data), "forget": {"classes": ["food"]}},
        "base": {"train": {"epochs": 6, "lr": 1e-2, "batch_size": 16}},
        "pool": {"train": {"batch_size": 8}, "grid": {"lr": [1e-3, 3e-3], "epochs": [2, 4]}},
        **more,
    }


def tokenizer(folder, pad=True):
    vocabulary = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *" ".join([*WORDS.values(), COMMON]).split()]
    model = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    own = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, model_max_length=32, **own, **({"pad_token": "[PAD]"} if pad else {})
    ).save_pretrained(folder)
    return len(vocabulary)


def save(folder, kind="bert", labels=tuple(WORDS), pad=True, **config):
    """Save a classifier with drawn weights and its tokenizer, and return the folder."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    vocabulary = tokenizer(folder, pad)
    torch.manual_seed(0)
    if kind == "gpt2":
        shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 1, "eos_token_id": 2}
        made = transformers.GPT2Config(vocab_size=vocabulary, **shape, **names, **config)
        model = transformers.GPT2ForSequenceClassification(made)
    else:
        Config = {"bert": transformers.BertConfig, "roberta": transformers.RobertaConfig}[kind]
        made = Config(vocab_size=vocabulary, max_position_embeddings=40, pad_token_id=3, **SIZE, **names, **config)
        Model = {"bert": transformers.BertForSequenceClassification}.get(
            kind, transformers.RobertaForSequenceClassification
        )
        model = Model(made)
    model.save_pretrained(folder)
    return folder
