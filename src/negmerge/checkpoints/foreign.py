"""Checkpoints that hold no plain weights: recognised, and refused with the name of what converts them."""

import json
from pathlib import Path

from negmerge.errors import InputError


def refuse_foreign(folder: Path, shown: Path) -> None:
    """Raise InputError for a folder of distributed or quantised weights."""
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        raise InputError(
            f"{shown} is a distributed checkpoint (DCP); convert it with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
        )
    if (folder / "zero_to_fp32.py").is_file() or any(folder.glob("*zero_pp_rank_*optim_states.pt")):
        raise InputError(f"{shown} is a DeepSpeed ZeRO checkpoint; convert it with its zero_to_fp32.py")
    quantised = _config(folder).get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise InputError(
            f"{shown} is quantised ({method or 'quantization_config in config.json'}); "
            "give full weights, for example by transformers' model.dequantize() and save_pretrained"
        )


def _config(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
