"""Names of the same model that differ only by what wrappers put before and into them.

torch.compile, FSDP, activation checkpointing and DataParallel keep a model in an attribute of their own, and so do the
modules of trainers such as Lightning. Its names then carry that attribute: `_orig_mod.conv.weight`,
`layers.0._fsdp_wrapped_module.weight`, `module.conv.weight`, `model.conv.weight`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from negmerge.checkpoints.alias import Aliased
from negmerge.checkpoints.base import Checkpoint
from negmerge.errors import InputError

# Attributes that only wrappers have: they mean nothing wherever they stand.
WRAPPERS = (
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module", "_forward_module", "_ddp_module",
)  # fmt: skip
# Attributes that wrappers have and models as well: taken off only where that makes the names of both sides meet.
HOLDERS = ("module", "model", "net", "network", "_model", "_net", "_module")
COUNTERS = ("n_averaged",)  # what torch.optim.swa_utils.AveragedModel counts beside its module
WORD = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(WRAPPERS)})\.")
INNER = re.compile(r"(?:(?<=\.)|^)module\.")


def unwrapped(name: str) -> str:
    """Return a name without the attributes that only wrappers have.

    >>> unwrapped("_orig_mod.layers.0._checkpoint_wrapped_module.weight")
    'layers.0.weight'
    """
    return WORD.sub("", name)


def without_wrappers(names: Sequence[str]) -> dict[str, str]:
    """Return each name without the attributes of wrappers: theirs anywhere, and a `module.` that all names begin with.

    Raises InputError for two names that are then one.

    >>> without_wrappers(["module._orig_mod.weight", "module._orig_mod.bias"])
    {'module._orig_mod.weight': 'weight', 'module._orig_mod.bias': 'bias'}
    """
    plain = {name: unwrapped(name) for name in names}
    while names and all(name.startswith("module.") for name in plain.values()):
        plain = {own: name.removeprefix("module.") for own, name in plain.items()}
    first: dict[str, str] = {}
    for own, name in plain.items():
        if first.setdefault(name, own) != own:
            raise InputError(f"{first[name]} and {own} are one name without their wrappers; save the model once")
    return plain


def matched(wanted: Iterable[str], names: Sequence[str], what: str) -> dict[str, str]:
    """Return for names of a checkpoint those among `wanted` that they stand for, where both sides differ by wrappers.

    Names that are equal as they are need nothing: then, and where taking wrappers off does not help, the mapping is
    empty. What is taken off is what makes the most names meet, and of several ways to the same the shortest.
    Raises InputError for a name that can be matched in two ways, naming both; `what` names the checkpoint.

    >>> matched(["weight", "bias"], ["module.weight", "module.bias"], "a.pt")
    {'module.weight': 'weight', 'module.bias': 'bias'}
    >>> matched(["model.a._orig_mod.w"], ["a.w"], "a.pt")
    {'a.w': 'model.a._orig_mod.w'}
    """
    wanted = tuple(wanted)
    if wanted == names or set(wanted) <= set(names):
        return {}
    ours, theirs = _spellings(wanted), _spellings(names)
    ways = [_Way(own, other) for own in ours for other in theirs]
    most = max(way.shared for way in ways)
    best = min((way for way in ways if way.shared == most), key=lambda way: way.taken)
    if most == 0 or most == len(set(wanted) & set(names)):
        return {}
    found = best.matches(what)
    for other in ways:
        if other.shared == most and (again := other.matches(what)) != found:
            name = next(name for name in names if found.get(name) != again.get(name))
            places = sorted({found.get(name, name), again.get(name, name)})
            raise InputError(f"{what}: {name} can stand for {' and for '.join(places)}; save it without its wrappers")
    return found


def renamed(base: Checkpoint, member: Checkpoint) -> Checkpoint:
    """Return a member under the base's names, where its own differ only by wrappers; else the member itself.

    Raises InputError for a name that can be matched in two ways.
    """
    found = matched(base.names, member.names, str(member.path))
    if not found:
        return member
    left = [name for name in member.names if name not in found and unwrapped(name) not in COUNTERS]
    own = {name: place for place, name in found.items()}
    there = frozenset(base.names)
    for name in left:
        if name in there:
            other = next(iter(found))
            raise InputError(
                f"{member.path}: {name} is a name of the base as it stands, but {other} stands for {found[other]}; "
                "save all tensors with the same wrappers"
            )
    return Aliased(member, own, (*(found[name] for name in member.names if name in found), *left))


@dataclass(frozen=True)
class _Spelling:
    """Names without some of their wrappers: for each what is left, and how many parts were taken off."""

    plain: Mapping[str, str]
    taken: int

    @cached_property
    def values(self) -> frozenset[str]:
        """What is left of all names."""
        return frozenset(self.plain.values())


@dataclass(frozen=True)
class _Way:
    """One spelling of the names wanted and one of those that are there."""

    wanted: _Spelling
    names: _Spelling

    @property
    def taken(self) -> int:
        """How many parts are taken off on both sides."""
        return self.wanted.taken + self.names.taken

    @cached_property
    def shared(self) -> int:
        """How many names meet."""
        return len(self.wanted.values & self.names.values)

    def matches(self, what: str) -> dict[str, str]:
        """Return for names that are there those that they meet. Raises InputError where two meet in one."""
        homes: dict[str, list[str]] = {}
        for own, name in self.wanted.plain.items():
            homes.setdefault(name, []).append(own)
        found: dict[str, str] = {}
        taken: dict[str, str] = {}
        for own, name in self.names.plain.items():
            for home in homes.get(name, ()):
                if home in taken or own in found:
                    both = (taken[home], own) if home in taken else (found[own], home)
                    raise InputError(
                        f"{what}: {both[0]} and {both[1]} are one name without their wrappers; save the model once"
                    )
                found[own], taken[home] = home, own
        return found


def _spellings(names: Sequence[str]) -> list[_Spelling]:
    """Return the names with fewer and fewer of their wrappers, as far as all names carry them."""
    plain = {name: unwrapped(name) for name in names}
    found = [_Spelling(plain, 0)]
    if any(INNER.search(name) for name in plain.values()):
        found.append(_Spelling({own: INNER.sub("", name) for own, name in plain.items()}, 1))
    for start in tuple(found):
        taken = start.taken
        rest = {own: name for own, name in start.plain.items() if name not in COUNTERS}
        counters = {own: name for own, name in start.plain.items() if name in COUNTERS}
        while rest and (holder := _holder(rest.values())):
            rest = {own: name.removeprefix(f"{holder}.") for own, name in rest.items()}
            taken += 1
            found.append(_Spelling({**rest, **counters}, taken))
    return found


def _holder(names: Iterable[str]) -> str | None:
    """Return the holder that all names begin with, or None."""
    names = iter(names)
    first, dot, _ = next(names).partition(".")
    return first if dot and first in HOLDERS and all(name.startswith(f"{first}.") for name in names) else None
