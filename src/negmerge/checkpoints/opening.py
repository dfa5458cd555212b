"""Opening a checkpoint, whatever it is."""

from pathlib import Path

from torch import Tensor

from negmerge.checkpoints.base import Checkpoint
from negmerge.checkpoints.safetensors_file import SafetensorsFile
from negmerge.checkpoints.torch_file import open_torch_file
from negmerge.errors import InputError

TORCH_ENDINGS = (".pt", ".pth", ".bin")


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a safetensors file, a PyTorch state dict, or a Hugging Face folder that holds one of them.

    Raises InputError for a path that is none of these, and whatever the format's own check finds.
    """
    place = Path(path)
    if place.is_dir():
        return _open_file(_weights_in(place), place)
    if not place.exists():
        raise InputError(f"{place}: no such file or folder; give a checkpoint that exists")
    return _open_file(place, place)


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Return all tensors of a checkpoint, in memory."""
    checkpoint = open_checkpoint(path)
    try:
        return {name: checkpoint.read(name).reshape(checkpoint.shape(name)) for name in checkpoint.names}
    finally:
        checkpoint.close()


def _weights_in(folder: Path) -> Path:
    for pattern in ("*.safetensors", "*.bin"):
        found = sorted(file for file in folder.glob(pattern) if not file.name.startswith("."))
        if len(found) == 1:
            return found[0]
        named = folder / pattern.replace("*", "model")
        if named in found:
            return named
        if found:
            names = ", ".join(file.name for file in found[:3])
            raise InputError(f"{folder} holds {len(found)} weight files ({names}, …); name the one that is meant")
    raise InputError(f"{folder} holds no .safetensors and no .bin file; give the folder of a saved model")


def _open_file(file: Path, shown: Path) -> Checkpoint:
    if file.suffix == ".safetensors":
        return SafetensorsFile(file, shown)
    if file.suffix in TORCH_ENDINGS:
        return open_torch_file(file, shown)
    raise InputError(
        f"{file}: {file.suffix or 'no ending'} is not a format that can be read; "
        f"there are .safetensors, {', '.join(TORCH_ENDINGS)}"
    )
