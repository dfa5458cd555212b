"""A folder OUT is loaded by transformers with all that the base is loaded with."""

import json
import shutil

import pytest
import torch
import transformers
from huggingface_hub import constants
from tokenizers import Tokenizer, models
from transformers import dynamic_module_utils

from negmerge.checkpoints import open_checkpoint
from negmerge.merging.engine import merge_checkpoints

SIZES = {
    "vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip


def moved(model, seed):
    """Move all weights of a model a little."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value += (0.05 * torch.randn(value.shape, generator=draw)).to(value.dtype)
    return model


def saved(folder, make, dtype=torch.bfloat16, **more):
    """Save a base and two members made by `make` below a folder; returns their paths."""
    paths = [folder / name for name in ("base", "m1", "m2")]
    for seed, path in enumerate(paths):
        torch.manual_seed(0)
        moved(make().to(dtype), seed).save_pretrained(path, **more)
    return paths


def tokenizer(kind=transformers.PreTrainedTokenizerFast):
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    return kind(tokenizer_object=words, unk_token="<unk>")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small Llama in bfloat16 with tokenizer, templates and feature extractor, and its members."""
    folder = tmp_path_factory.mktemp("llama")
    base, *members = saved(folder, lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)))
    own = tokenizer()
    own.chat_template = {"default": "D {{ messages }}", "tool_use": "T"}
    own.save_pretrained(base)
    transformers.WhisperFeatureExtractor(feature_size=4).save_pretrained(base)
    transformers.GenerationConfig(max_new_tokens=7, eos_token_id=3).save_pretrained(base)
    return base, members


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("size", [None, "500"])
def test_the_dtype_that_was_asked_for(llama, tmp_path, dtype, size):
    base, members = llama
    merge_checkpoints(base, members, tmp_path / "out", dtype=dtype, max_shard_size=size)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    held = open_checkpoint(tmp_path / "out")
    assert config["dtype"] == dtype and {str(held.dtype(name)) for name in held.names} == {dtype}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == getattr(torch, dtype)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").hidden_size == 8


def test_without_a_dtype_config_json_keeps_its_bytes(llama, tmp_path):
    base, members = llama
    report = merge_checkpoints(base, members, tmp_path / "out")
    assert report.left_behind == ()
    for file in ("config.json", "tokenizer.json", "additional_chat_templates/tool_use.jinja"):
        assert (tmp_path / "out" / file).read_bytes() == (base / file).read_bytes()


def test_tokenizer_templates_and_processors(llama, tmp_path):
    base, members = llama
    merge_checkpoints(base, members, tmp_path / "out")
    before, after = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (base, tmp_path / "out"))
    assert after.chat_template == before.chat_template == {"default": "D {{ messages }}", "tool_use": "T"}
    assert after("a b").input_ids == before("a b").input_ids == [0]
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "out").feature_size == 4
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "out").max_new_tokens == 7


def test_the_dtype_of_a_composite_model(tmp_path):
    def make():
        text = {
            "vocab_size": 32,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
        }
        vision = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
        heads = {"num_attention_heads": 2}
        return transformers.CLIPModel(
            transformers.CLIPConfig(text_config={**text, **heads}, vision_config={**vision, **heads}, projection_dim=4)
        )

    base, *members = saved(tmp_path, make, torch.float16)
    config = json.loads((base / "config.json").read_text())
    config["text_config"]["dtype"] = config["vision_config"]["torch_dtype"] = "float16"  # as transformers 4 wrote it
    (base / "config.json").write_text(json.dumps(config))
    assert transformers.CLIPVisionModel.from_pretrained(base).dtype == torch.float16
    merge_checkpoints(base, members, tmp_path / "out", dtype="float32")
    model = transformers.CLIPModel.from_pretrained(tmp_path / "out")
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    parts = (model.config, model.config.text_config, model.config.vision_config)
    assert [part.dtype for part in parts] == [torch.float32] * 3
    vision = transformers.CLIPVisionModel.from_pretrained(tmp_path / "out")
    assert vision.dtype == torch.float32


def test_a_config_without_a_dtype_is_left_to_the_weights(llama, tmp_path):
    base, members = llama
    bare = tmp_path / "bare"
    shutil.copytree(base, bare)
    config = json.loads((bare / "config.json").read_text())
    del config["dtype"]
    (bare / "config.json").write_text(json.dumps(config))
    merge_checkpoints(bare, members, tmp_path / "out", dtype="float32")
    assert (tmp_path / "out" / "config.json").read_bytes() == (bare / "config.json").read_bytes()
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.float32


CONFIGURATION = """
from transformers import PretrainedConfig

class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, size=3, **kwargs):
        self.size = size
        super().__init__(**kwargs)
"""
MODELING = """
import torch
from transformers import PreTrainedModel

from .configuration_own import OwnConfig
from .own_layers import Layer

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = Layer(config.size)
        self.post_init()
"""
LAYERS = """
import torch

class Layer(torch.nn.Linear):
    def __init__(self, size):
        super().__init__(size, size)
"""


def test_code_of_the_models_own(tmp_path, monkeypatch):
    """A model whose classes lie in its folder loads from OUT, and code that it does not use stays behind."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    config = {"model_type": "own", "size": 3, "auto_map": {"AutoConfig": "configuration_own.OwnConfig",
              "AutoModel": "modeling_own.OwnModel"}}  # fmt: skip
    code = {"configuration_own.py": CONFIGURATION, "modeling_own.py": MODELING, "own_layers.py": LAYERS}
    for seed, name in enumerate(("base", "m1", "m2")):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in {**code, "config.json": json.dumps(config), "train.py": "import own_layers"}.items():
            (folder / file).write_text(text)
        torch.manual_seed(seed)
        layer = torch.nn.Linear(3, 3)
        state = {f"layer.{key}": value.detach() for key, value in layer.state_dict().items()}
        torch.save(state, folder / "pytorch_model.bin")
    report = merge_checkpoints(tmp_path / "base", [tmp_path / "m1", tmp_path / "m2"], tmp_path / "out")
    assert report.left_behind == ("train.py",)
    shutil.rmtree(tmp_path / "base")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(model).__name__ == "OwnModel"
    held = open_checkpoint(tmp_path / "out")
    assert torch.equal(model.layer.weight.flatten(), held.read("layer.weight"))


def test_a_base_in_the_cache_of_the_hub(llama, tmp_path, monkeypatch):
    """Its files are links; OUT has files of its own, for the folder of the cache and for the model's id."""
    base, members = llama
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "1234567" + 33 * "0"
    cache = tmp_path / "hub" / "models--own--llama"
    snapshot = cache / "snapshots" / commit
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(path for path in base.rglob("*") if path.is_file())):
        blob, link = cache / "blobs" / str(number), snapshot / file.relative_to(base)
        shutil.copy(file, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    merge_checkpoints(base, members, tmp_path / "direct", hash_inputs=False)
    names = {path.relative_to(tmp_path / "direct") for path in (tmp_path / "direct").rglob("*")}
    for given, out in ((snapshot, tmp_path / "out"), ("own/llama", tmp_path / "by-id")):
        merge_checkpoints(given, members, out, hash_inputs=False)
        assert names == {path.relative_to(out) for path in out.rglob("*")}
        assert not any(path.is_symlink() for path in out.rglob("*"))
        assert transformers.AutoTokenizer.from_pretrained(out).chat_template["tool_use"] == "T"
