"""config.json says what OUT holds, and keeps its bytes where it says so already."""

import json

import pytest

from negmerge.errors import InputError
from negmerge.merging.output.model_config import changed_config

CONFIG = {
    "architectures": ["X"],
    "torch_dtype": "bfloat16",
    "text_config": {"dtype": "torch.float16", "inner": {"torch_dtype": "float32"}, "eps": 1e-6},
    "vision_config": {"dtype": None, "hidden": 4},
    "audio_config": {"hidden": "float32"},
    "compute": {"dtype": {"": "bfloat16", "text_config": "float16"}, "index_dtype": "bfloat16"},
    "mask": {"dtype": "int64"},
}


@pytest.fixture
def config(tmp_path):
    """A config.json, and a function that returns it changed."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return lambda dtype=None, **changes: changed_config(
        path, dtype, {tuple(k.split("__")): v for k, v in changes.items()}
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_the_dtype_of_every_sub_config(config, dtype):
    found = json.loads(config(dtype))
    assert found["torch_dtype"] == dtype
    assert found["text_config"] == {"dtype": f"torch.{dtype}", "inner": {"torch_dtype": dtype}, "eps": 1e-6}
    assert found["compute"] == {"dtype": {"": dtype, "text_config": dtype}, "index_dtype": "bfloat16"}
    assert {k: found[k] for k in ("vision_config", "audio_config", "mask")} == {
        k: CONFIG[k] for k in ("vision_config", "audio_config", "mask")
    }
    assert list(found) == list(CONFIG)


def test_changes_by_key_path(config):
    found = json.loads(config(tie_word_embeddings=False, text_config__tie_word_embeddings=False, new__deep=1))
    assert found["tie_word_embeddings"] is False and found["text_config"]["tie_word_embeddings"] is False
    assert found["new"] == {"deep": 1} and found["torch_dtype"] == "bfloat16"
    assert json.loads(config("float32", torch_dtype="float16"))["torch_dtype"] == "float16"


def test_what_it_says_already_is_no_change(config):
    assert config() is None
    assert config(torch_dtype="bfloat16", text_config__eps=1e-6) is None


def test_false_is_not_zero(tmp_path):
    (tmp_path / "config.json").write_text('{"tie_word_embeddings": 0}')
    changed = changed_config(tmp_path / "config.json", None, {("tie_word_embeddings",): False})
    assert changed == b'{\n  "tie_word_embeddings": false\n}\n'


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1', "[" * 100_000, '{"text_config": 3}', "\xff"])
def test_no_json_object(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    assert changed_config(path, None, {}) is None
    with pytest.raises(InputError, match="is no JSON object, so it cannot be made to say what OUT holds"):
        changed_config(path, "float32", {("text_config", "tie_word_embeddings"): False})
