"""Opening a checkpoint, whatever it is."""

from pathlib import Path
from typing import TYPE_CHECKING

from negmerge.checkpoints import adapter
from negmerge.checkpoints.adapter import Adapter
from negmerge.checkpoints.base import Checkpoint
from negmerge.checkpoints.foreign import refuse_ending, refuse_foreign
from negmerge.checkpoints.hub import fetch, looks_like_hub_id
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.checkpoints.sharded import Sharded
from negmerge.checkpoints.torch_file import TorchFile
from negmerge.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

TORCH_ENDINGS = (".pt", ".pth", ".bin")
# What a folder may hold, best first; the names are those of transformers.
IN_FOLDERS = (
    "model.safetensors", "model.safetensors.index.json", "*.safetensors.index.json", "*.safetensors",
    "pytorch_model.bin", "model.bin", "pytorch_model.bin.index.json", "*.bin.index.json", "*.bin",
)  # fmt: skip


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a safetensors file, a PyTorch state dict, a Hugging Face folder (sharded or not), or a model of the hub.

    Raises InputError for a path that is none of these, and whatever the format's own check finds.
    """
    return open_found(*find(Path(path)))


def open_found(place: Path, shown: Path) -> Checkpoint:
    """Open a checkpoint where `find` found it. Raises InputError as `open_checkpoint` does."""
    if not place.is_dir():
        return _open_file(place, shown)
    if adapter.is_adapter(place):
        raise InputError(f"{shown} is an adapter, which is no model of its own; give it as a member beside its base")
    refuse_foreign(place, shown)
    weights = _weights_in(place, shown)
    if weights.name.endswith(".index.json"):
        return Sharded(weights, shown, _open_file)
    return _open_file(weights, shown)


def open_adapter(place: Path, shown: Path) -> Adapter:
    """Open the folder of a LoRA adapter.

    Raises InputError for one without weights, and for a kind that is not read.
    """
    weights = adapter.weights_in(place)
    if weights is not None:
        return Adapter(place, shown, _open_file(weights, shown))
    raise InputError(f"{shown} has an {adapter.CONFIG} but none of {', '.join(adapter.WEIGHTS)}; save it again")


def find(path: Path) -> tuple[Path, Path]:
    """Return where a checkpoint lies on this machine, and how messages name it; a hub id is fetched.

    Raises InputError where there is nothing.
    """
    if path.exists():
        return path, path
    if looks_like_hub_id(path):
        return fetch(path)
    raise InputError(f"{path}: no such file or folder; give a checkpoint that exists")


def read_state_dict(path: Path | str) -> dict[str, "Tensor"]:
    """Return all tensors of a checkpoint, in memory."""
    checkpoint = open_checkpoint(path)
    try:
        return {name: checkpoint.read(name).reshape(checkpoint.shape(name)) for name in checkpoint.names}
    finally:
        checkpoint.close()


def _weights_in(folder: Path, shown: Path) -> Path:
    for pattern in IN_FOLDERS:
        found = sorted(file for file in folder.glob(pattern) if file.is_file() and not file.name.startswith("."))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found[:3])
            raise InputError(f"{shown} holds {len(found)} weight files ({names}, …) and no index; name the one meant")
    raise InputError(f"{shown} holds no .safetensors and no .bin file; give the folder of a saved model")


def _open_file(file: Path, shown: Path) -> Checkpoint:
    refuse_ending(file, shown)
    if file.suffix == ".safetensors":
        return SafetensorsFile(file, shown)
    if file.suffix in TORCH_ENDINGS:
        return TorchFile(file, shown)
    raise InputError(
        f"{file}: {file.suffix or 'no ending'} is not a format that can be read; "
        f"there are .safetensors, {', '.join(TORCH_ENDINGS)}"
    )
