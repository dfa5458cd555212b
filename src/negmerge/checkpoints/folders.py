"""What a folder without weights is, and what to give instead of it."""

import re
from collections.abc import Sequence
from pathlib import Path

from negmerge.checkpoints.adapter import CONFIG, WEIGHTS
from negmerge.checkpoints.foreign import OWN_STATE

STEP = re.compile(r"checkpoint[-_](\d+)")
MODEL_FILES = ("*.safetensors", "*.bin", "*.safetensors.index.json")
# Files that may hold weights, but are looked for in no folder: there are often many of them.
SINGLE = (".pt", ".pth", ".ckpt", ".tar", ".th")


def instead(folder: Path, shown: Path) -> str:
    """Return the rest of a message that begins with the folder: what it is, and what to give instead."""
    visible = sorted(place for place in folder.glob("*") if not place.name.startswith("."))
    inside = [place for place in visible if place.is_dir()]
    steps = sorted((int(found[1]), place.name) for place in inside if (found := STEP.fullmatch(place.name)))
    shards = [place for place in inside if any(place.glob("*.distcp"))]
    zero = [place for place in inside if any(place.glob("*zero_pp_rank_*_states.pt"))]
    adapters = [place.name for place in inside if (place / CONFIG).is_file()]
    models = [place.name for place in inside if _holds_model(place)]
    if shards:
        return (
            f"keeps its weights in shards of FSDP in {shards[0].name}/; join them with `accelerate merge-weights "
            f"{shown / shards[0].name} OUT`, or with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
        )
    if zero:
        return f"is a DeepSpeed ZeRO checkpoint in {zero[0].name}/; convert it with its zero_to_fp32.py"
    if steps:
        return f"is a trainer's folder and holds no weights itself: give {shown / steps[-1][1]}"
    if adapters:
        return f"holds no weights, but {_lie(adapters, 'an adapter lies', 'adapters lie', shown)}"
    if models:
        return f"holds no weights, but {_lie(models, 'a model lies', 'models lie', shown)}"
    files = [file.name for file in visible if file.is_file()]
    single = [name for name in files if Path(name).suffix in SINGLE and not OWN_STATE.fullmatch(name)]
    own = [name for name in files if OWN_STATE.fullmatch(name)]
    if single:
        return f"holds no .safetensors and no .bin file, but {', '.join(single[:3])}: give {shown / single[0]}"
    if own:
        return (
            f"holds only a trainer's own state ({', '.join(own[:3])}) and no weights; give the folder of a saved model"
        )
    return "holds no .safetensors and no .bin file; give the folder of a saved model"


def _lie(names: Sequence[str], one: str, several: str, shown: Path) -> str:
    """Return where something lies, and which folder to give."""
    if len(names) == 1:
        return f"{one} in {shown / names[0]}: give that folder"
    more = ", …" if len(names) > 3 else ""
    return f"{several} in {', '.join(names[:3])}{more}: give one of these, such as {shown / names[0]}"


def _holds_model(folder: Path) -> bool:
    return any(
        file.name not in WEIGHTS and not OWN_STATE.fullmatch(file.name)
        for pattern in MODEL_FILES
        for file in folder.glob(pattern)
    )
