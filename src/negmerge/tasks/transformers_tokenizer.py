"""The tokenizer of a model of transformers."""

from functools import lru_cache
from typing import Any

from negmerge.errors import InputError
from negmerge.tasks.transformers_model import TransformersModel, quiet, reason

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "chat_template.jinja",
)


@lru_cache(maxsize=4)
def tokenizer_of(path: str) -> Any:
    """Return the tokenizer of a folder or a hub id. Raises InputError where there is none, or it cannot be read."""
    from transformers import AutoTokenizer

    folder = TransformersModel(path).folder
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise InputError(f"{path} has no tokenizer (tokenizer.json, vocab.txt, …); save it beside the model")
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # whatever the many classes of tokenizers raise
        raise InputError(f"{path}: transformers cannot read its tokenizer ({reason(error)})") from None
