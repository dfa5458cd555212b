"""Models by their id on the Hugging Face hub, or in its cache on this machine."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from negmerge.errors import InputError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".th")
# Weights, and whatever may belong to loading them; what does belong is decided once the files are here.
FILES = [
    "*.safetensors", "*.bin", "*.json", "*.model", "*.txt", "*.md", "*.py", "*.jinja", "*.tiktoken", "*.spm", "*.codes",
    "*.bpe", "*.tokenizer", "tokenizer*", "*/tokenizer*", "artifact.metadata", "mel_filters.npz", "spk_dict.pt",
    "speaker_embeddings/*", "*.arpa", "*[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*", "*[Cc][Oo][Pp][Yy]*",
    "*[Nn][Oo][Tt][Ii][Cc][Ee]*", "*[Ee][Uu][Ll][Aa]*", "*[Pp][Oo][Ll][Ii][Cc][Yy]*", "*[Tt][Ee][Rr][Mm][Ss]*",
]  # fmt: skip
COPIES = ["original/*", "onnx/*", "openvino/*", "gguf/*", "checkpoint-*/*"]


def looks_like_hub_id(path: Path) -> bool:
    """Whether a path that does not exist may be `owner/name` or `owner/name@revision`: no weight file, no known folder.

    >>> looks_like_hub_id(Path("openai/clip-vit-base-patch32@main")), looks_like_hub_id(Path("a/b.safetensors"))
    (True, False)
    """
    text = path.as_posix()
    if not HUB_ID.fullmatch(text) or path.suffix in WEIGHT_FILES:
        return False
    return not Path(text.split("/")[0]).exists()


def fetch(path: Path) -> tuple[Path, Path]:
    """Return the local folder of a model of the hub, and its name with the commit: `owner/name@commit`.

    Files come from the cache where they are there; with HF_HUB_OFFLINE=1 from nowhere else.
    Raises InputError where the hub does not have it or cannot be reached.
    """
    name, _, revision = path.as_posix().partition("@")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"{path}: no such file or folder; to read it from the hub, pip install huggingface_hub"
        ) from None
    try:
        with _quiet():
            folder = Path(
                snapshot_download(name, revision=revision or None, allow_patterns=FILES, ignore_patterns=COPIES)
            )
    except Exception as error:  # its client has dozens, down to those of its transport
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: no such file or folder, and the hub does not give it ({type(error).__name__}: {reason[:160]})"
        ) from None
    return folder, Path(f"{name}@{folder.name}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's client from writing retries to stderr."""
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
