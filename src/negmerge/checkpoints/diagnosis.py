"""Why the names of two checkpoints differ, in one line, where there is one reason for all of them."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from negmerge.checkpoints.adapter import CONFIG
from negmerge.checkpoints.base import Checkpoint

FACTORS = re.compile(r"(?:^|\.)lora_(?:embedding_)?[AB](?:\.|$)")
FLAT = re.compile(r"(?:^|\.)_flat_param(?:_\d+)?$")
ZERO = (
    "was saved under DeepSpeed ZeRO-3 without gathering: {empty} of its tensors have no elements; give the weights "
    "that zero_to_fp32.py makes of its checkpoint, or save with stage3_gather_16bit_weights_on_model_save"
)
FEW = 0.1  # of the names of the smaller side: below, two checkpoints are taken for different architectures


def diagnose(base: Checkpoint, member: Checkpoint) -> str | None:
    """Return one line that says why a member does not fit the base, or None where names differ one by one."""
    return _of_one(base, is_base=True) or _of_one(member, is_base=False) or _of_both(base, member)


def placeholders(checkpoint: Checkpoint) -> int:
    """Return how many tensors have no elements, if these are most of them; else 0.

    DeepSpeed's ZeRO-3 leaves such in the place of parameters that it has spread over processes.
    """
    empty = sum(checkpoint.shape(name) == (0,) for name in checkpoint.names)
    return empty if 2 * empty > len(checkpoint.names) else 0


def _of_one(checkpoint: Checkpoint, is_base: bool) -> str | None:
    """What a checkpoint alone shows: placeholders, an adapter's factors, flattened parameters."""
    path = checkpoint.path
    if empty := placeholders(checkpoint):
        return f"{path} {ZERO.format(empty=empty)}"
    if any(FACTORS.search(name) for name in checkpoint.names):
        if is_base:
            return (
                f"{path} holds the factors of an adapter, which is no model of its own; give the model it was made for"
            )
        folder = path.parent if not path.is_dir() else path
        where = f"give the folder {folder}" if (folder / CONFIG).is_file() else f"give a folder that has its {CONFIG}"
        return f"{path} holds the factors of an adapter: {where}"
    if any(FLAT.search(name) for name in checkpoint.names):
        return f"{path} holds the flattened parameters of FSDP; save it with StateDictType.FULL_STATE_DICT"
    return None


def _of_both(base: Checkpoint, member: Checkpoint) -> str | None:
    ours, theirs = base.names, member.names
    names = frozenset(theirs)
    shared = sum(name in names for name in ours)
    copies = _prefixes(ours, theirs)
    if shared == len(ours) and copies:
        copies = ["", *copies]
    elif shared > FEW * min(len(ours), len(theirs)):
        return None
    if len(copies) > 1:
        places = " and ".join(f"{prefix}*" for prefix in copies)
        return f"{member.path} holds the base's names twice, as {places}; save the one meant alone"
    if copies:
        return _one_prefix(base.path, member.path, copies[0], theirs, extra=True)
    if within := _prefixes(theirs, ours):
        return _one_prefix(member.path, base.path, within[0], ours, extra=False)
    own, other = _common(ours), _common(theirs)
    rest = {name.removeprefix(own) for name in ours}
    if own and other and rest == {name.removeprefix(other) for name in theirs}:
        return (
            f"all names differ by the prefix: {own}* in the base {base.path}, {other}* in {member.path}; "
            "rename one side's"
        )
    return _another(base.path, member.path, ours, theirs, shared)


def _one_prefix(plain: Path, prefixed: Path, prefix: str, names: Sequence[str], extra: bool) -> str | None:
    """The names of one side are those of the other behind a prefix, all of them or beside others."""
    others = [name for name in names if not name.startswith(prefix)]
    if not others:
        return (
            f"all names differ by the prefix {prefix!r}: {prefixed} has it and {plain} has not; "
            f"rename them, for example {{name.removeprefix({prefix!r}): tensor for name, tensor in state.items()}}"
        )
    more = f"others ({', '.join(others[:2])}{', …' if len(others) > 2 else ''})"
    if extra:
        return (
            f"{prefixed} holds the names of {plain} behind the prefix {prefix!r}, beside {more}; save that part alone"
        )
    return f"{plain} is a part of {prefixed}, which has its names behind {prefix!r}, beside {more}; give both whole"


def _prefixes(plain: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return what stands before at least nine tenths of the plain names among others, shortest first."""
    there = frozenset(names)
    first = max(plain, key=lambda name: (name.count("."), len(name)), default="")
    found = sorted(
        {name.removesuffix(first) for name in names if name.endswith(f".{first}")}, key=lambda p: (len(p), p)
    )
    return [prefix for prefix in found if sum(prefix + name in there for name in plain) >= 0.9 * len(plain)]


def _common(names: Sequence[str]) -> str:
    """Return the parts that all names begin with, with the dot behind them."""
    low, high = min(names, default=""), max(names, default="")
    parts = []
    for a, b in zip(low.split(".")[:-1], high.split(".")[:-1], strict=False):
        if a != b:
            break
        parts.append(a)
    return ".".join(parts) + "." if parts else ""


def _another(base: Path, member: Path, ours: Sequence[str], theirs: Sequence[str], shared: int) -> str | None:
    if not ours or not theirs:
        return None
    count = "none" if shared == 0 else f"only {shared}"
    return (
        f"{member} has {count} of the {len(ours)} names of the base {base}: another architecture? "
        f"The base has {_lone(ours, theirs)}; the member {_lone(theirs, ours)}"
    )


def _lone(names: Sequence[str], others: Sequence[str]) -> str:
    """Return the first two names that the other side has not."""
    there = frozenset(others)
    return ", ".join(itertools.islice((name for name in names if name not in there), 2))
