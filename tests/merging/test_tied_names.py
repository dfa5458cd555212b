"""The names that may be tied against transformers' own lists, and what its configs say."""

import ast
import re
from pathlib import Path

import pytest

from negmerge.merging.pool.tied_names import is_embedding, is_head, listed_head, ties_words, twin_bias, untying_changes

transformers = pytest.importorskip("transformers")


def lists_of_transformers():
    """Each class with its `_tied_weights_keys`, read from the sources: importing hundreds of models takes minutes."""
    found = {}
    for file in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        text = file.read_text()
        for part in re.split(r"^class ", text, flags=re.MULTILINE)[1:]:
            keys = re.search(r"^    _tied_weights_keys = (\{.*?\})", part, re.DOTALL | re.MULTILINE)
            if keys:
                found[re.match(r"\w+", part)[0]] = ast.literal_eval(keys[1])
    return found


def test_the_rule_covers_every_language_model_of_transformers():
    from transformers.models.auto import modeling_auto as auto

    wanted = {
        name
        for mapping in (auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
        for name in mapping.values()
    } | set(auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES.values())
    lists = {name: keys for name, keys in lists_of_transformers().items() if name in wanted}
    assert len(lists) > 150
    missed = []
    for name, keys in lists.items():
        for pair in keys.items():
            a, b = (key.rstrip("$") for key in pair)
            if a.endswith(".weight"):
                kinds = {(is_head(key), is_embedding(key)) for key in (a, b)}
                known = kinds in ({(True, False), (False, True)}, {(False, True)})
            else:
                known = twin_bias(a) == b or twin_bias(b) == a
            # Classes that tie other things than words: shared storage and equal values find these.
            if not known and "entity" not in a and re.fullmatch(r"[\w.]+", a):
                missed.append((name, a, b))
    assert missed == []


def test_no_other_tensor_of_a_model_is_taken_for_a_head_or_an_embedding_of_words():
    others = [
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight",
        "transformer.wpe.weight", "bert.embeddings.position_embeddings.weight", "encoder.layer.0.output.dense.weight",
        "bert.embeddings.token_type_embeddings.weight", "lm_head.bias", "classifier.weight", "lm_head.dense.weight",
    ]  # fmt: skip
    assert not [name for name in others if is_head(name) or is_embedding(name)]


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (None, True),
        ({}, True),  # transformers 4 leaves out what is true
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False}, False),
        ({"text_config": {"tie_word_embeddings": False}}, False),
        ({"tie_word_embeddings": False, "text_config": {"tie_word_embeddings": True}}, True),
        ({"tie_word_embeddings": False, "vision_config": {"tie_word_embeddings": True}}, False),
        ({"encoder": {}, "decoder": {"tie_word_embeddings": False}}, False),
    ],
)
def test_what_a_config_says(config, tied):
    assert ties_words(config) is tied


def test_untying_reaches_nested_configs():
    config = {"tie_word_embeddings": True, "text_config": {"hidden_size": 4}, "vision_config": {}}
    assert untying_changes(config) == {
        "tie_word_embeddings": False,
        "text_config": {"tie_word_embeddings": False},
    }


def test_the_head_of_an_architecture_is_looked_up():
    assert listed_head({"architectures": ["LlamaForCausalLM"]}, "model.embed_tokens.weight") == "lm_head.weight"
    assert listed_head({"architectures": ["GPT2LMHeadModel"]}, "transformer.wte.weight") == "lm_head.weight"
    assert listed_head({"architectures": ["BertModel"]}, "embeddings.word_embeddings.weight") is None
    for config in ({}, {"architectures": ["NoSuchModel"]}, {"architectures": "LlamaForCausalLM"}):
        with pytest.raises(LookupError):
            listed_head(config, "model.embed_tokens.weight")
