"""Why the names of two checkpoints differ, in one line, where there is one reason for all of them."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from negmerge.checkpoints.adapter import CONFIG
from negmerge.checkpoints.base import Checkpoint
from negmerge.errors import InputError

FACTORS = re.compile(r"(?:^|\.)lora_(?:embedding_)?[AB](?:\.|$)")
FLAT = re.compile(r"(?:^|\.)_flat_param(?:_\d+)?$")
ZERO = (
    "was saved under DeepSpeed ZeRO-3 without gathering: {empty} of its tensors have no elements; give the weights "
    "that zero_to_fp32.py makes of its checkpoint, or save with stage3_gather_16bit_weights_on_model_save"
)
FLATTENED = "holds the flattened parameters of FSDP; save it with StateDictType.FULL_STATE_DICT"
MOST = 0.9  # of the names that must stand behind a prefix
FEW = 0.1  # of the names of the smaller side: below, two checkpoints are taken for different architectures


def diagnose(base: Checkpoint, member: Checkpoint) -> str | None:
    """Return one line that says why a member does not fit the base, or None where names differ one by one."""
    return _of_member(member) or _of_both(base, member)


def refuse_part(base: Checkpoint) -> None:
    """Raise InputError for a base that is no whole model, which members of its kind would fit."""
    empty, factors, flat = _counts(base)
    if 2 * factors > len(base.names):
        raise InputError(
            f"{base.path} holds the factors of an adapter, which is no model of its own; give the model it was made for"
        )
    if 2 * empty > len(base.names):
        raise InputError(f"{base.path} {ZERO.format(empty=empty)}")
    if flat:
        raise InputError(f"{base.path} {FLATTENED}")


def _of_member(member: Checkpoint) -> str | None:
    """What a member alone shows: placeholders, an adapter's factors, flattened parameters."""
    path = member.path
    empty, factors, flat = _counts(member)
    if 2 * empty > len(member.names):
        return f"{path} {ZERO.format(empty=empty)}"
    if factors:
        folder = path if path.is_dir() else path.parent
        where = f"give the folder {folder}" if (folder / CONFIG).is_file() else f"give a folder that has its {CONFIG}"
        return f"{path} holds the factors of an adapter: {where}"
    return f"{path} {FLATTENED}" if flat else None


def _counts(checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Return how many tensors are placeholders without elements, factors of an adapter, flattened parameters."""
    return (
        sum(checkpoint.shape(name) == (0,) for name in checkpoint.names),
        sum(".lora_" in f".{name}" and FACTORS.search(name) is not None for name in checkpoint.names),
        sum("_flat_param" in name and FLAT.search(name) is not None for name in checkpoint.names),
    )


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
        places = " and ".join(f"{prefix}*" for prefix in copies[:2])
        return f"{member.path} holds the base's names {len(copies)} times, as {places}; save the one meant alone"
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
    # Long names are the least likely to be the end of another by chance; one of them may be missing there.
    tried = sorted(plain, key=lambda name: (name.count("."), len(name), name))[-3:]
    found = {name.removesuffix(end) for end in tried for name in names if name.endswith(f".{end}")}
    return [
        prefix
        for prefix in sorted(found, key=lambda prefix: (len(prefix), prefix))
        if sum(prefix + name in there for name in plain) >= MOST * len(plain)
    ]


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
