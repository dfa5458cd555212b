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
    """Return names of a checkpoint as they are among `wanted`, where both sides differ by wrappers.

    Names that are equal as they are need nothing: then, and where taking wrappers off does not help, the mapping is
    empty. What is taken off is what makes the most names meet, and of several ways to the same the shortest; names
    that then meet none are spelled as the others are. A counter of a wrapper that meets none is left out.
    Raises InputError for a name that can be matched in two ways, naming both; `what` names the checkpoint.

    >>> matched(["weight", "bias"], ["module.weight", "module.bias", "n_averaged"], "a.pt")
    {'module.weight': 'weight', 'module.bias': 'bias'}
    >>> matched(["model.a._orig_mod.w"], ["a.w"], "a.pt")
    {'a.w': 'model.a._orig_mod.w'}
    """
    wanted = tuple(wanted)
    there = frozenset(wanted)
    if wanted == names or there <= frozenset(names):
        return {}
    ours, theirs = _spellings(wanted), _spellings(names)
    ways = [_Way(own, other) for own in ours for other in theirs]
    most = max(way.shared for way in ways)
    if most == sum(name in there for name in names):
        return {}
    equal = [way for way in ways if way.shared == most]
    best = min(equal, key=lambda way: way.taken)
    found = best.matches(what)
    for other in equal:
        again = other.matches(what)
        if again != found:
            name = next(name for name in names if found.get(name) != again.get(name))
            places = sorted({found.get(name, name), again.get(name, name)})
            raise InputError(f"{what}: {name} can stand for {' and for '.join(places)}; save it without its wrappers")
    return {**found, **_checked(best.left(found), there, what)}


def renamed(base: Checkpoint, member: Checkpoint) -> Checkpoint:
    """Return a member under the base's names, where its own differ only by wrappers; else the member itself.

    Raises InputError for a name that can be matched in two ways.
    """
    found = matched(base.names, member.names, str(member.path))
    if not found:
        _refuse_twice(base.names, member)
        return member
    return Aliased(member, {name: own for own, name in found.items()}, names=tuple(found.values()))


def _refuse_twice(wanted: Sequence[str], member: Checkpoint) -> None:
    """Raise InputError where a member has one tensor under the base's name, and another under that with wrappers."""
    if len(member.names) == len(wanted):
        return
    there, own = frozenset(wanted), frozenset(member.names)
    for name in member.names:
        plain = unwrapped(name)
        if name not in there and plain in there and plain in own and name not in member.tied:
            raise InputError(f"{member.path}: {plain} and {name} are one name without wrappers; save the model once")


@dataclass(frozen=True)
class _Spelling:
    """Names without some of their wrappers: for each what is left; the holders that all had before it; how many."""

    plain: Mapping[str, str]
    before: str
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

    def left(self, found: Mapping[str, str]) -> dict[str, str]:
        """Return for names that meet none how the wanted side would spell them."""
        rest = {own: name for own, name in self.names.plain.items() if own not in found and name not in COUNTERS}
        return {own: self.wanted.before + name for own, name in rest.items()}


def _checked(left: dict[str, str], wanted: frozenset[str], what: str) -> dict[str, str]:
    """Return the names that meet none, once each is spelled in its own way."""
    first: dict[str, str] = {}
    for own, name in left.items():
        if first.setdefault(name, own) != own or name in wanted or own in wanted:
            other = first[name] if first[name] != own else "the others"
            raise InputError(f"{what}: {own} and {other} carry different wrappers; save all tensors with the same ones")
    return left


def _spellings(names: Sequence[str]) -> list[_Spelling]:
    """Return the names with fewer and fewer of their wrappers, as far as all names carry them."""
    plain = {name: unwrapped(name) for name in names}
    found = [_Spelling(plain, "", 0)]
    if any(INNER.search(name) for name in plain.values()):
        found.append(_Spelling({own: INNER.sub("", name) for own, name in plain.items()}, "", 1))
    for start in tuple(found):
        before, taken = "", start.taken
        rest = {own: name for own, name in start.plain.items() if name not in COUNTERS}
        counters = {own: name for own, name in start.plain.items() if name in COUNTERS}
        while rest and (holder := _holder(rest.values())):
            rest = {own: name.removeprefix(holder) for own, name in rest.items()}
            before, taken = before + holder, taken + 1
            found.append(_Spelling({**rest, **counters}, before, taken))
    return found


def _holder(names: Iterable[str]) -> str | None:
    """Return the holder that all names begin with, its dot included, or None."""
    names = iter(names)
    first, dot, _ = next(names).partition(".")
    return first + dot if dot and first in HOLDERS and all(name.startswith(first + dot) for name in names) else None
