"""Which tensors of a language model are tied by their names, and what config.json says of that.

transformers ties an output head to the embedding of the input words; each class lists the two names in
`_tied_weights_keys`. The patterns below cover these lists, which a test compares with the installed transformers, so
that transformers need not be there or be imported: a pair of such names is only a candidate until its values are equal.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from negmerge.checkpoints import Checkpoint
from negmerge.checkpoints.plain_file import CONFIG_LIMIT, read_small
from negmerge.errors import InputError

HEAD = re.compile(
    r"(^|\.)(lm_head|lm_head\.decoder|lm_head\.out_proj|embed_out|proj_out|output_projection|generator_lm_head"
    r"|vocab_projector|pred_layer\.proj|lm_loss|output|head|decoder|unembedding_projection)\.weight$"
)
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_in|embed_audio_tokens|tokens_embed|tok_embeddings|word_embeddings?|embeddings"
    r"|embedding_projection|shared|wte|w)\.weight$"
)
DECODER_BIAS = re.compile(r"^(.*\.)?decoder\.bias$")
CONFIG = "config.json"
KEY = "tie_word_embeddings"
TEXT_CONFIGS = ("text_config", "decoder", "llm_config", "language_config")
# In these models `tie_word_embeddings: false` also stops the decoder's output from being scaled.
SCALED_BY_THE_TIE = re.compile("t5|switch_transformers|pop2piano|udop")


def is_head(name: str) -> bool:
    """Return whether a name is that of an output head over the vocabulary.

    >>> is_head("lm_head.weight"), is_head("model.layers.0.mlp.up_proj.weight")
    (True, False)
    """
    return HEAD.search(name) is not None


def is_embedding(name: str) -> bool:
    """Return whether a name is that of an embedding of words.

    >>> is_embedding("transformer.wte.weight"), is_embedding("transformer.wpe.weight")
    (True, False)
    """
    return EMBEDDING.search(name) is not None


def twin_bias(name: str) -> str | None:
    """Return the name that transformers ties to the bias of a decoder, or None for any other name.

    >>> twin_bias("cls.predictions.decoder.bias")
    'cls.predictions.bias'
    """
    found = DECODER_BIAS.match(name)
    return f"{found[1] or ''}bias" if found else None


def read_config(base: Checkpoint) -> dict[str, Any] | None:
    """Return config.json of a base that is a folder, or None where there is none that can be read."""
    if base.path.is_file() or not base.files:
        return None
    path = base.files[0].parent / CONFIG
    return parse_config(path) if path.is_file() else None


def parse_config(path: Path) -> dict[str, Any] | None:
    """Return a config, or None where it is no JSON object."""
    try:
        content = json.loads(read_small(path, CONFIG_LIMIT))
    except (ValueError, RecursionError, InputError):
        return None
    return content if isinstance(content, dict) else None


def ties_words(config: Mapping[str, Any] | None) -> bool:
    """Return whether a config lets the output head be tied to the embedding: unless it says that it is not.

    transformers 4 left the key out where it was true. A model of several parts says it in the config of its language
    model; where one place says true, it is tied.
    """
    said = [place[KEY] for place in _places(config) if KEY in place]
    return not said or any(value is not False for value in said)


def says_tied(config: Mapping[str, Any] | None) -> bool:
    """Return whether a config says by a word that head and embedding are tied."""
    return any(place.get(KEY) is True for place in _places(config))


def untying_changes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that say in a copy of `config` that head and embedding are not tied, nested as they are there."""
    nested = {key: {KEY: False} for key in TEXT_CONFIGS if isinstance(config.get(key), dict)}
    return {KEY: False, **nested}


def why_not_untied(config: Mapping[str, Any] | None) -> str | None:
    """Return why OUT cannot be written with a head and an embedding that differ, or None where it can."""
    if config is None:
        return "no config.json beside the base can say that OUT does not tie them"
    kinds = [str(place.get("model_type", "")) for place in _places(config)]
    scaled = [kind for kind in kinds if SCALED_BY_THE_TIE.search(kind)]
    return f"a model of type {scaled[0]} would stop scaling its output when its config unties them" if scaled else None


def listed_head(config: Mapping[str, Any], embedding: str) -> str | None:
    """Return the head that transformers ties to `embedding` in the architecture of a config, or None for no head.

    Imports transformers, which takes seconds. Raises LookupError where transformers, or the class, is not there.
    """
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        raise LookupError("config.json names no architecture")
    name = str(architectures[0])
    try:
        import transformers

        keys = getattr(transformers, name)._tied_weights_keys
    except (ImportError, AttributeError, RuntimeError):
        raise LookupError(f"transformers, where it is installed, has no class {name:.80}") from None
    if isinstance(keys, Mapping):
        both_ways = [*keys.items(), *((source, target) for target, source in keys.items())]
        found = [other for own, other in both_ways if own == embedding and is_head(other)]
    else:  # transformers 4 lists the tied names alone
        found = [key for key in keys or () if is_head(key)]
    return found[0] if found else None


def _places(config: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if config is not None:
        yield config
        yield from (config[key] for key in TEXT_CONFIGS if isinstance(config.get(key), dict))
