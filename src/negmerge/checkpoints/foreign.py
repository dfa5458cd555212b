"""Checkpoints that hold no plain weights: recognised, and refused with the name of what converts them."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from negmerge.checkpoints.base import is_name
from negmerge.checkpoints.plain_file import CONFIG_LIMIT, read_small
from negmerge.errors import InputError

DCP = (
    "a distributed checkpoint (DCP); convert it with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
)
ZERO = "a DeepSpeed ZeRO checkpoint; convert it with its zero_to_fp32.py"
ENDINGS = {
    ".distcp": f"a part of {DCP}",
    ".gguf": "a GGUF file; load it with transformers' from_pretrained(gguf_file=…) and save_pretrained",
    ".h5": "a TensorFlow file; load it with transformers 4 by from_pretrained(from_tf=True) and save_pretrained",
    ".msgpack": "a Flax file; load it with transformers 4 by from_pretrained(from_flax=True) and save_pretrained",
    ".onnx": "an ONNX program; give the PyTorch weights that it was exported from",
    ".tflite": "a TensorFlow Lite program; give the PyTorch weights that it was made from",
    ".keras": "a Keras file; save the weights of the PyTorch model",
    ".npz": "an archive of NumPy arrays; save a state dict",
}
# What trainers (transformers, accelerate, Lightning) keep of themselves beside the weights.
OWN_STATE = re.compile(
    r"(training_args|scaler|(optimizer|scheduler|sampler|dl_state_dict|rng_state|random_states)(_\d+)?)\.(bin|pt|pth|pkl)"
)
DEQUANTIZE = "load it with transformers, then model.dequantize() and save_pretrained"
CONVERT = "convert it to full weights with compressed_tensors.entrypoints.convert"
GPTQ = "convert it with gptqmodel.utils.model_dequant.dequantize_model"
NARROW = ("F8_", "F6_", "F4")
INTEGERS = ("I8", "U8", "I16", "I32", "I64")


def refuse_foreign(folder: Path, shown: Path) -> None:
    """Raise InputError for a folder of distributed or quantised weights."""
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        raise InputError(f"{shown} is {DCP}")
    shards = any(folder.glob("*zero_pp_rank_*_states.pt"))
    # Training saves whole weights beside the shards of its optimiser: then there is nothing to convert.
    if shards or ((folder / "zero_to_fp32.py").is_file() and not _has_weights(folder)):
        raise InputError(f"{shown} is {ZERO}")
    quantised = _config(folder).get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        known = isinstance(method, str) and is_name(method)
        what = method if known else "quantization_config in config.json"
        raise InputError(
            f"{shown} is quantised ({what:.80}); "
            "give full weights, for example by transformers' model.dequantize() and save_pretrained"
        )


def refuse_ending(file: Path, shown: Path) -> None:
    """Raise InputError for a file whose name says that it is another program's, a trainer's, or a part of a whole."""
    if OWN_STATE.fullmatch(file.name):
        raise InputError(
            f"{shown} is a trainer's own state and holds no weights; give the model that was saved beside it"
        )
    if file.name.endswith(("_optim_states.pt", "_model_states.pt")):
        raise InputError(f"{shown} is a part of {ZERO}")
    if file.suffix in ENDINGS:
        raise InputError(f"{shown} is {ENDINGS[file.suffix]}")


def may_be_quantised(codes: Iterable[str]) -> bool:
    """Whether there are dtypes among those of a file, as safetensors writes them, in which quantised weights come."""
    return any(code in INTEGERS or code.startswith(NARROW) for code in codes)


def refuse_quantised(codes: Mapping[str, object], shown: Path) -> None:
    """Raise InputError where tensors are quantised weights; `codes` maps names to dtypes as safetensors writes them.

    They are known by their dtype (fp8 and narrower), or by integers with the companions that each format gives them.
    """
    for name, code in codes.items():
        if not isinstance(code, str):
            continue
        if code.startswith(NARROW):
            kind, way = _narrow(name, code, codes)
            raise InputError(f"{shown} is quantised ({kind}: {name} is {code}); {way}")
        if code in INTEGERS:
            for kind, way, fits in COMPANIONS:
                if fits(name, codes):
                    raise InputError(f"{shown} is quantised ({kind}: {name}); {way}")


def _narrow(name: str, code: str, codes: Mapping[str, object]) -> tuple[str, str]:
    if f"{name}_scale_inv" in codes:
        return "fp8 in scaled blocks", f"{CONVERT} (FP8BlockDequantizer)"
    if f"{name}_scale" in codes:
        return "compressed-tensors", f"{CONVERT}, or {DEQUANTIZE}"
    return ("fp8" if code.startswith("F8") else "less than 8 bits"), "save it in bfloat16 from what quantised it"


def _beside(ending: str, *companions: str) -> Callable[[str, Mapping[str, object]], bool]:
    """Return whether a name ends so, and one of the companions stands beside it."""

    def fits(name: str, codes: Mapping[str, object]) -> bool:
        stem = name.removesuffix(ending)
        return stem != name and any(stem + companion in codes for companion in companions)

    return fits


COMPANIONS: tuple[tuple[str, str, Callable[[str, Mapping[str, object]], bool]], ...] = (
    ("bitsandbytes 4-bit", DEQUANTIZE, _beside(".weight", ".weight.absmax", ".weight.quant_state.bitsandbytes__nf4")),
    ("bitsandbytes 4-bit", DEQUANTIZE, _beside(".weight", ".weight.quant_state.bitsandbytes__fp4")),
    ("bitsandbytes 8-bit", DEQUANTIZE, _beside(".weight", ".SCB", ".weight.SCB", ".weight_format")),
    ("GPTQ", GPTQ, _beside(".qweight", ".g_idx")),
    ("AWQ", f"{CONVERT}, or {GPTQ}", _beside(".qweight", ".qzeros", ".scales")),
    ("compressed-tensors", f"{CONVERT}, or {DEQUANTIZE}", _beside(".weight_packed", ".weight_scale")),
    ("int8 with scales", f"{CONVERT}, or {DEQUANTIZE}", _beside(".weight", ".weight_scale", ".weight_scale_inv")),
    ("HQQ", DEQUANTIZE, _beside(".W_q", ".scale", ".zero", ".meta")),
)


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin"))


def _config(folder: Path) -> dict[str, object]:
    place = folder / "config.json"
    if not place.is_file():
        return {}
    try:
        found = json.loads(read_small(place, CONFIG_LIMIT))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
