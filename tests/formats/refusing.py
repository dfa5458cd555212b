"""Checkpoints that hold no plain weights, each as what makes one, and the words of the message that say what to do."""

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from negmerge.checkpoints import write_state_dict
from pools import make_state

SCALES = torch.ones(4)
FP8 = torch.ones(4, 4).to(torch.float8_e4m3fn)


def integers(dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.ones(4, 2, dtype=dtype)


@dataclass(frozen=True)
class Quantised:
    """A format of quantised weights: the tensors of one layer, what the message calls it, and what it says to do."""

    title: str
    parts: Mapping[str, Tensor]
    kind: str
    tool: str


DEQUANTIZE = "model.dequantize() and save_pretrained"
CONVERT = "compressed_tensors.entrypoints.convert"
QUANTISED = (
    Quantised("fp8 without scales", {"weight": FP8}, "fp8: layer.weight is F8_E4M3", "save it in bfloat16"),
    Quantised(
        "fp8 (e5m2)",
        {"weight": torch.ones(4, 4).to(torch.float8_e5m2)},
        "fp8: layer.weight is F8_E5M2",
        "save it in bfloat16",
    ),
    Quantised("fp8 in scaled blocks", {"weight": FP8, "weight_scale_inv": SCALES}, "fp8 in scaled blocks", CONVERT),
    Quantised("compressed-tensors (fp8)", {"weight": FP8, "weight_scale": SCALES}, "compressed-tensors: ", CONVERT),
    Quantised(
        "compressed-tensors (packed)",
        {"weight_packed": integers(), "weight_scale": SCALES, "weight_shape": integers(torch.int64)},
        "compressed-tensors: layer.weight_packed",
        CONVERT,
    ),
    Quantised(
        "GPTQ",
        {"qweight": integers(), "qzeros": integers(), "scales": SCALES.half(), "g_idx": integers()},
        "GPTQ: layer.qweight",
        "gptqmodel.utils.model_dequant.dequantize_model",
    ),
    Quantised(
        "AWQ",
        {"qweight": integers(), "qzeros": integers(), "scales": SCALES.half()},
        "AWQ: layer.qweight",
        "gptqmodel.utils.model_dequant.dequantize_model",
    ),
    Quantised(
        "bitsandbytes 4-bit",
        {
            "weight": integers(torch.uint8), "weight.absmax": SCALES, "weight.quant_map": SCALES,
            "weight.quant_state.bitsandbytes__nf4": integers(torch.uint8),
        },
        "bitsandbytes 4-bit: layer.weight",
        DEQUANTIZE,
    ),
    Quantised(
        "bitsandbytes 8-bit", {"weight": integers(torch.int8), "SCB": SCALES}, "bitsandbytes 8-bit", DEQUANTIZE
    ),
    Quantised("int8 with scales", {"weight": integers(torch.int8), "weight_scale": SCALES}, "int8 with", CONVERT),
    Quantised("HQQ", {"W_q": integers(torch.uint8), "scale": SCALES, "zero": SCALES}, "HQQ: layer.W_q", DEQUANTIZE),
)  # fmt: skip


@dataclass(frozen=True)
class Refused:
    """Something that is not read: what makes it, and what the message says to do; adapters are given as members."""

    title: str
    make: Callable[[Path], Path]
    tool: str
    member: bool = False


def save_quantised(case: Quantised) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        save_file({f"layer.{name}": value.clone() for name, value in case.parts.items()}, folder / "x.safetensors")
        return folder / "x.safetensors"

    return make


def quantised_by_config(folder: Path) -> Path:
    write_state_dict(folder / "model.safetensors", make_state(0))
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    return folder


def distributed(folder: Path) -> Path:
    """Save a DCP checkpoint as torch does."""
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings(action="ignore"):  # it was made for many processes, and says that there is one
        dcp.save(make_state(0), checkpoint_id=folder / "dcp")
    return folder / "dcp"


def zero(folder: Path) -> Path:
    """Lay out the files that DeepSpeed leaves of a run on two processes; return the folder."""
    steps = folder / "global_step10"
    steps.mkdir(parents=True)
    (folder / "latest").write_text("global_step10")
    (folder / "zero_to_fp32.py").write_text("")
    for rank in range(2):
        torch.save({"optimizer_state_dict": {}}, steps / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        torch.save({"module": {}}, steps / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    return folder


def plain(name: str, data: bytes = b"x") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def placeholders(folder: Path) -> Path:
    """Save what a run under ZeRO-3 saves that does not gather its parameters."""
    write_state_dict(folder / "x.safetensors", {name: torch.empty(0) for name in make_state(0)})
    return folder / "x.safetensors"


def trainer(folder: Path) -> Path:
    """Lay out the folder of a training, which has the models in folders of their own; return it."""
    for step in (90, 500):
        (folder / f"checkpoint-{step}").mkdir()
        write_state_dict(folder / f"checkpoint-{step}" / "model.safetensors", make_state(0))
    (folder / "training_args.bin").write_bytes(b"x")
    return folder


def fsdp(folder: Path) -> Path:
    (folder / "pytorch_model_fsdp_0").mkdir()
    for name in (".metadata", "__0_0.distcp"):
        (folder / "pytorch_model_fsdp_0" / name).write_bytes(b"x")
    return folder


def prefixed(folder: Path) -> Path:
    state = {f"backbone.{name}": value for name, value in make_state(0).items()}
    write_state_dict(folder / "x.safetensors", state)
    return folder / "x.safetensors"


def saved(content: Callable[[], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with warnings.catch_warnings(action="ignore"):  # torch deprecates some of these tensors
            torch.save(content(), folder / "x.pt")
        return folder / "x.pt"

    return make


def program(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "x.pt", "w") as archive:
        for part in ("data.pkl", "constants.pkl"):
            archive.writestr(f"x/{part}", b"")
    return folder / "x.pt"


def adapter(**config: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        keys = ("base_model.model.stem.lora_A.weight", "base_model.model.stem.lora_B.weight")
        tensors = dict(zip(keys, (torch.ones(2, 5), torch.ones(7, 2)), strict=True))
        write_state_dict(folder / "adapter_model.safetensors", tensors)
        content = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, **config}
        (folder / "adapter_config.json").write_text(json.dumps(content))
        return folder

    return make


STATE_DICT = "save its state_dict() alone"
MERGED = "merge it into its base first"
REFUSED = (
    *(Refused(case.title, save_quantised(case), case.tool) for case in QUANTISED),
    Refused("any `quantization_config` in `config.json`", quantised_by_config, DEQUANTIZE),
    Refused(
        "distributed checkpoint of torch (DCP)",
        distributed,
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch",
    ),
    Refused("DeepSpeed ZeRO checkpoint", zero, "zero_to_fp32.py"),
    Refused("GGUF", plain("x.gguf"), "from_pretrained(gguf_file=…) and save_pretrained"),
    Refused(
        "GGUF under another name",
        plain("x.model", b"GGUF\3\0\0\0"),
        "from_pretrained(gguf_file=…) and save_pretrained",
    ),
    Refused("TensorFlow `.h5`", plain("x.h5"), "transformers 4 by from_pretrained(from_tf=True)"),
    Refused("ONNX", plain("x.onnx"), "give the PyTorch weights that it was exported from"),
    Refused("archives: tar, gzip and others", plain("x.tar", bytes(257) + b"ustar\0"), "unpack it"),
    Refused("pointer of Git LFS", plain("x.bin", b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    Refused("Flax `.msgpack`", plain("x.msgpack"), "transformers 4 by from_pretrained(from_flax=True)"),
    Refused("folder of a training, with `checkpoint-*` in it", trainer, "checkpoint-500"),
    Refused("shards of FSDP (`pytorch_model_fsdp_0`)", fsdp, "accelerate merge-weights"),
    Refused("`training_args.bin`, `optimizer.pt` and the like", plain("optimizer.pt"), "give the model"),
    Refused("placeholders of DeepSpeed ZeRO-3", placeholders, "stage3_gather_16bit_weights_on_model_save"),
    Refused("names that all differ by a prefix of no wrapper", prefixed, "removeprefix('backbone.')"),
    Refused("pickled model (would execute code)", saved(lambda: torch.nn.Linear(1, 1)), STATE_DICT),
    Refused("TorchScript program", program, STATE_DICT),
    Refused("sparse tensors", saved(lambda: {"a": torch.ones(2, 2).to_sparse()}), STATE_DICT),
    Refused(
        "quantised tensors of torch",
        saved(lambda: {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        STATE_DICT,
    ),
    Refused("DoRA adapter", adapter(use_dora=True), MERGED, member=True),
    Refused("adapter with `lora_bias`", adapter(lora_bias=True), MERGED, member=True),
    Refused("adapter with `layer_replication`", adapter(layer_replication=[[0, 1]]), MERGED, member=True),
    Refused("adapter with `trainable_token_indices`", adapter(trainable_token_indices=[1]), MERGED, member=True),
    Refused("adapter with `target_parameters`", adapter(target_parameters=["a"]), MERGED, member=True),
    *(
        Refused(f"{kind} adapter", adapter(peft_type=kind.upper()), "merge it first", member=True)
        for kind in ("LoHa", "LoKr", "IA3", "VeRA")
    ),
    *(
        Refused(
            f"adapter initialised by {title}",
            adapter(init_lora_weights=title.lower()),
            "path_initial_model_for_weight_conversion",
            member=True,
        )
        for title in ("PiSSA", "OLoRA", "CorDA", "LoftQ")
    ),
)
