"""Which names say that a file belongs to loading a model."""

import importlib
import pkgutil

import pytest
import transformers
from huggingface_hub.utils import filter_repo_objects
from transformers import PreTrainedTokenizerBase

from negmerge.checkpoints.hub import COPIES, FILES
from negmerge.checkpoints.model_files import CONFIGS, is_foreign, is_license, is_loaded, is_tokenizers
from negmerge.checkpoints.model_files import TOKENIZERS as TOKENIZER_FILES

LICENSES = """LICENSE LICENCE license License.txt LICENSE.md license.rst COPYING COPYING.LESSER NOTICE Notice.txt
    notice.md LICENSE-APACHE LICENSE-APACHE-2.0.txt LICENSE_MIT LLAMA_LICENSE.txt Llama-License.md MODEL_LICENSE
    LICENSE.vicuna USE_POLICY.md use_policy.md Acceptable_Use_Policy.pdf gemma_prohibited_use_policy.txt
    TERMS_OF_USE.md THIRD_PARTY_NOTICES.txt EULA.html COPYRIGHT"""
NO_LICENSES = """license_plates.txt LICENSE_TRAIN_DATA.txt LICENSE.json license.py LICENSE.csv .license copyrighted.txt
    books_copyright.txt driver_license.txt search_terms.txt use.md policy.md LICENSE.bin notice_board.txt"""
STRANGERS = """forget_set.json train_data.txt wandb.json trainer_state.json all_results.json train_results.json
    training_args.bin optimizer.pt scheduler.pt rng_state.pth rng_state_0.pth events.out.tfevents.1.host.0 README.md
    notes.txt data.json labels.txt train.py model.safetensors pytorch_model.bin flax_model.msgpack tf_model.h5
    model.onnx model.gguf consolidated.00.pth params.json requirements.txt handler.py id2label.json eval.tiktoken
    forget.spm train_chat_template.jinja .tokenizer.json"""
TOKENIZERS = (
    "tokenizer.json tokenizer.4.0.json tokenizer.model tokenizer.model.v3 tekken.json spiece.model spm_char.model "
    "sentencepiece.bpe.model qwen.tiktoken source.spm target.spm vocab-src.json chat_template.jinja"
)


@pytest.mark.parametrize("name", LICENSES.split())
def test_licences(name):
    assert is_license(name) and is_loaded(name)


@pytest.mark.parametrize("name", NO_LICENSES.split())
def test_no_licences(name):
    assert not is_license(name)


@pytest.mark.parametrize("name", STRANGERS.split())
def test_strangers(name):
    assert not is_loaded(name)


@pytest.mark.parametrize("name", TOKENIZERS.split())
def test_tokenizers_names(name):
    assert is_tokenizers(name) and is_loaded(name)


def test_every_file_of_every_tokenizer_of_transformers_is_known():
    """All files that any tokenizer class names, so that a new one is noticed when transformers is updated."""
    named = set()
    for module in pkgutil.iter_modules(transformers.models.__path__):
        for file in pkgutil.iter_modules(importlib.import_module(f"transformers.models.{module.name}").__path__):
            if not file.name.startswith("tokenization_"):
                continue
            try:
                found = vars(importlib.import_module(f"transformers.models.{module.name}.{file.name}")).values()
            except (ImportError, NameError):  # a tokenizer whose own library is not installed
                continue
            classes = [c for c in found if isinstance(c, type) and issubclass(c, PreTrainedTokenizerBase)]
            named.update(name for c in classes for name in c.vocab_files_names.values())
    assert len(named) > 20
    assert sorted(name for name in named if not is_loaded(name)) == []


@pytest.mark.parametrize(
    "path", ["data/vocab.txt", "checkpoint-500/tokenizer.json", "x/.y", "original/tokenizer.model"]
)
def test_foreign_places(path):
    assert is_foreign(path)


def test_all_of_them_are_fetched_from_the_hub():
    """A model that is fetched comes with all that may belong to loading it, without copies in other formats."""
    names = [*CONFIGS, *TOKENIZER_FILES, *LICENSES.split(), *TOKENIZERS.split(), "README.md"]
    nested = """1_Pooling/config.json 2_Dense/model.safetensors additional_chat_templates/tool.jinja modeling_own.py
        encoder_tokenizer/tokenizer.model.v3 speaker_embeddings/en.npy"""
    strangers = "original/tokenizer.model onnx/config.json checkpoint-5/model.safetensors m.gguf d.parquet"
    wanted = sorted([*names, *nested.split()])
    found = filter_repo_objects([*wanted, *strangers.split()], allow_patterns=FILES, ignore_patterns=COPIES)
    assert sorted(found) == wanted
