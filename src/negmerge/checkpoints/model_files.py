"""Names of the files that libraries ask for when they load the folder of a model, beside its weights."""

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

# What transformers, sentence-transformers, open_clip, Whisper, ModelScope and ColBERT open by a fixed name.
CONFIGS = (
    "config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "audio_tokenizer_config.json", "configuration.json", "open_clip_config.json",
    "modules.json", "config_sentence_transformers.json", "router_config.json", "sentence_bert_config.json",
    "sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_camembert_config.json",
    "sentence_albert_config.json", "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json",
    "speaker_embeddings_path.json", "spk_dict.pt", "mel_filters.npz", "artifact.metadata",
)  # fmt: skip
# The vocab_files_names of all tokenizers of transformers, and what is read beside them.
TOKENIZERS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tekken.json",
    "vocab.json", "vocab.txt", "vocab.bpe", "merges.txt", "bpe.codes", "dict.txt", "emoji.json", "normalizer.json",
    "entity_vocab.json", "target_vocab.json", "word_shape.json", "word_pronunciation.json", "byte_maps.json",
    "alphabet.json", "prophetnet.tokenizer", "chat_template.json",
)  # fmt: skip
# Names of which a model may have several, told apart by a version, a language or a word.
CLASSES = (
    "tokenizer.*.json", "tokenizer.model*", "tiktoken.model", "spiece*.model", "spm*.model", "sentencepiece*.model",
    "vocab-*.json", "*.tiktoken", "*.spm", "*chat_template*.jinja",
)  # fmt: skip
# A folder with one of these is that of a tokenizer or a processor.
ANCHORS = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "processor_config.json",
           "preprocessor_config.json")  # fmt: skip
# Folders that are opened by a fixed name, and what is read in them.
FOLDERS = {
    "additional_chat_templates": ("*.jinja",),
    "custom_generate": ("*.py", "requirements.txt"),
    # The beam search of Wav2Vec2ProcessorWithLM, which has alphabet.json beside this folder.
    "language_model": ("attrs.json", "unigrams.txt", "*.arpa", "*.bin"),
}
WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".hdf5", ".keras", ".msgpack", ".onnx", ".onnx_data",
    ".gguf", ".ggml", ".tflite", ".pb", ".ot", ".npz", ".pkl", ".pickle", ".distcp", ".mlmodel", ".nemo", ".tar",
)  # fmt: skip
DATA = (".parquet", ".arrow", ".jsonl", ".ndjson", ".csv", ".tsv", ".log", ".db", ".sqlite", ".zip", ".gz", ".zst")
# Words of a name that say that a file or folder is a data set, or a trainer's.
NOT_THE_MODELS = frozenset((
    "data", "dataset", "datasets", "corpus", "train", "training", "trainer", "finetune", "valid", "validation", "val",
    "eval", "evaluation", "test", "tests", "dev", "forget", "retain", "holdout", "sample", "samples", "example",
    "examples", "results", "metrics", "predictions", "log", "logs", "runs", "wandb", "mlruns", "tensorboard",
    "lightning", "checkpoint", "checkpoints", "optimizer", "scheduler", "rng", "original", "onnx", "openvino", "gguf",
    "coreml", "tflite", "flax", "tf", "mlx", "metal",
))  # fmt: skip
LICENSES = frozenset(
    ("license", "licence", "licenses", "licences", "copying", "copyright", "notice", "notices", "eula")
)
POLICIES = (["use", "policy"], ["terms", "of", "use"], ["terms", "of", "service"])
# What the name of a licence may say beside the word: which licence, or of what.
OF_LICENSES = frozenset((
    "apache", "mit", "bsd", "gpl", "lgpl", "agpl", "mpl", "cc", "by", "nc", "sa", "nd", "openrail", "rail", "llama",
    "gemma", "qwen", "mistral", "falcon", "deepseek", "model", "models", "weights", "code", "software", "tokenizer",
    "third", "party", "thirdparty", "research", "community", "commercial", "agreement", "and", "or", "v", "clause",
    "only", "later", "lesser",
))  # fmt: skip
TEXTS = (".md", ".txt", ".rst", ".pdf", ".html")


def is_loaded(name: str) -> bool:
    """Whether a file is opened by its name when a model is loaded, or is the model's licence or policy.

    >>> [is_loaded(name) for name in ("tokenizer.json", "qwen.tiktoken", "LICENSE.txt", "forget_set.json")]
    [True, True, True, False]
    """
    return name in CONFIGS or is_tokenizers(name) or is_license(name)


def is_tokenizers(name: str) -> bool:
    """Whether a file is opened by its name when a tokenizer is loaded."""
    of_class = any(fnmatchcase(name, pattern) for pattern in CLASSES)
    return name in TOKENIZERS or (of_class and not is_foreign(name) and not name.startswith("."))


def is_license(name: str) -> bool:
    """Whether a file is a licence, a notice or a policy, by the words of its name, in any case.

    The other words say which licence, or of what, as in LICENSE-APACHE-2.0 or model_license.md; they may be anything
    where the word itself is in capitals and stands first or last: LICENSE.vicuna, but not license_plates.txt.
    """
    place = PurePosixPath(name)
    if name.startswith(".") or place.suffix.lower() in (".py", ".json", ".yaml", ".yml", *WEIGHTS, *DATA):
        return False
    spelt = _words(place.stem if place.suffix.lower() in TEXTS else name)
    words = [word.lower() for word in spelt]
    if NOT_THE_MODELS.intersection(words):
        return False
    if any(words[-len(policy) :] == policy for policy in POLICIES):
        return True
    capital = [word for word in (*spelt[:1], *spelt[-1:]) if word.lower() in LICENSES and word.isupper()]
    return bool(LICENSES.intersection(words)) and (bool(capital) or OF_LICENSES.union(LICENSES).issuperset(words))


def is_foreign(path: str) -> bool:
    """Whether a path, relative to the model's folder, says that it is hidden, weights, data, or a trainer's.

    >>> is_foreign("data/vocab.txt"), is_foreign("tokenizer/vocab.txt")
    (True, False)
    """
    place = PurePosixPath(path)
    hidden = any(part.startswith(".") for part in place.parts)
    return hidden or place.suffix.lower() in WEIGHTS + DATA or bool(NOT_THE_MODELS.intersection(_words(path.lower())))


def _words(name: str) -> list[str]:
    return re.findall("[A-Za-z]+", name)
