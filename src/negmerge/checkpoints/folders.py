"""What a folder without weights is, and what to give instead of it."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from negmerge.checkpoints.adapter import CONFIG, WEIGHTS
from negmerge.checkpoints.foreign import OWN_STATE

STEP = re.compile(r"checkpoint[-_](\d+)")
IN_FOLDERS = (".safetensors", ".bin")  # what a folder is given for
SINGLE = (".pt", ".pth", ".ckpt", ".tar", ".th")  # what is given as a file: there are often many in a folder
MOST = 10_000  # files that are looked at below the folder: it may hold data as well


def instead(folder: Path, shown: Path) -> str:
    """Return the rest of a message that begins with the folder: what it is, and what to give instead."""
    visible = sorted(place for place in folder.glob("*") if not place.name.startswith("."))
    inside = [place for place in visible if place.is_dir()]
    steps = sorted((int(found[1]), place.name) for place in inside if (found := STEP.fullmatch(place.name)))
    adapters = [place.name for place in inside if (place / CONFIG).is_file()]
    models = [place.name for place in inside if any(_is_model(file) for file in place.glob("*"))]
    if parts := _in_parts(inside, shown):
        return parts
    if steps:
        return f"is a trainer's folder and holds no weights itself: give {shown / steps[-1][1]}"
    if adapters:
        return f"holds no weights, but {_lie(adapters, 'an adapter lies', 'adapters lie', shown)}"
    if models:
        return f"holds no weights, but {_lie(models, 'a model lies', 'models lie', shown)}"
    return _of_files([place for place in visible if place.is_file()], folder, shown)


def _in_parts(inside: Sequence[Path], shown: Path) -> str | None:
    """What is said of weights that lie in shards of a distributed training, in a folder of their own."""
    for place in inside:
        if any(place.glob("*.distcp")):
            return (
                f"keeps its weights in shards of FSDP in {place.name}/; join them with `accelerate merge-weights "
                f"{shown / place.name} OUT`, or with `python -m torch.distributed.checkpoint.format_utils dcp_to_torch`"
            )
        if any(place.glob("*zero_pp_rank_*_states.pt")):
            return f"is a DeepSpeed ZeRO checkpoint in {place.name}/; convert it with its zero_to_fp32.py"
    return None


def _of_files(files: Sequence[Path], folder: Path, shown: Path) -> str:
    """What is said of a folder by its files, and by those further in."""
    own = [file.name for file in files if OWN_STATE.fullmatch(file.name)]
    single = [file.name for file in files if file.suffix in SINGLE and file.name not in own]
    if single:
        return f"holds no .safetensors and no .bin file, but {', '.join(single[:3])}: give {shown / single[0]}"
    for pattern in ("*/*", "*/*/*"):
        for file in sorted(itertools.islice(folder.glob(pattern), MOST)):
            if _is_model(file) or (file.suffix in SINGLE and file.is_file() and not OWN_STATE.fullmatch(file.name)):
                place = file if file.suffix in SINGLE else file.parent
                return f"holds no weights, but there are some further in: give {shown / place.relative_to(folder)}"
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


def _is_model(file: Path) -> bool:
    """Whether a file is one for which its folder is given."""
    known = file.name not in WEIGHTS and not OWN_STATE.fullmatch(file.name)
    return file.suffix in IN_FOLDERS and known and file.is_file()
