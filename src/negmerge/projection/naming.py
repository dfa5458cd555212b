"""The layers of a moments file under the names of a checkpoint, which may have one prefix more or less."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from negmerge.errors import InputError
from negmerge.projection.layers import Layer

Shape = Callable[[str], tuple[int, ...]]


@dataclass(frozen=True)
class Found:
    """Layers under the names of a checkpoint, those it lacks among them; `of` has the name in the moments of each."""

    layers: tuple[Layer, ...]
    missing: tuple[str, ...]
    of: Mapping[str, str]


def found_in(layers: Sequence[Layer], names: Sequence[str], shape: Shape, where: str, file: str) -> Found:
    """Return layers under the names of a checkpoint: as they are, or all with one prefix put before or taken off.

    A prefix counts where more layers are found with it than without, and none finds as many. Of names that stand
    behind a prefix only partly (a head beside a body) the others stay. Raises InputError where two prefixes do as well,
    and where no layer is found.
    """
    there = frozenset(names)
    plain = _Naming("", "")
    most, best = sum(_is_in(layer, there) for layer in layers), [plain]
    for naming in _candidates(layers, there) if most < len(layers) else ():
        mapped = [naming.applied(layer, there) for layer in layers]
        count = sum(_is_in(layer, there) and fits(layer, shape(_name_in(layer, there))) for layer in mapped)
        if count > most and _are_distinct(layers, naming, there):
            most, best = count, [naming]
        elif count == most and best != [plain] and _are_distinct(layers, naming, there):
            best.append(naming)
    if not most:
        raise InputError(f"{file}: none of its layers (such as {layers[0].weight[0]}) is in {where}")
    if len(best) > 1:
        raise InputError(
            f"{file}: its layers are in {where} {best[0].said} and {best[1].said}; make the moments of this model"
        )
    mapped = [best[0].applied(layer, there) for layer in layers]
    of = {own: name for old, new in zip(layers, mapped, strict=True) for own, name in _pairs(old, new)}
    return Found(tuple(mapped), tuple(layer.name for layer in mapped if not _is_in(layer, there)), of)


def check_most(found: Found, names: Sequence[str], where: str, file: str) -> None:
    """Raise InputError where a checkpoint lacks more than half of the layers, with two names of each side."""
    if 2 * len(found.missing) <= len(found.layers):
        return
    known = frozenset(name for layer in found.layers for name in layer.tensors)
    missing = [layer.weight[0] for layer in found.layers if layer.name in found.missing]
    others = [name for name in names if name not in known and name.endswith(".weight")]
    others = others or [name for name in names if name not in known]
    here = len(found.layers) - len(found.missing)
    raise InputError(
        f"{file}: {here} of its {len(found.layers)} layers are in {where}: it has {_two(missing)}, there stand "
        f"{_two(others)}; take the moments and merge checkpoints under the same names, such as base and pool of a run"
    )


def fits(layer: Layer, shape: tuple[int, ...]) -> bool:
    """Return whether a weight of this shape has the inputs of a layer."""
    if layer.kind in ("conv1d", "embedding"):
        return len(shape) == 2 and shape[0] == layer.columns
    if layer.kind == "tied-embedding":
        return len(shape) == 2 and shape[1] == layer.columns
    if layer.kind == "conv-transposed":
        return torch.Size((shape[0] // layer.groups, *shape[2:])).numel() == layer.columns
    return torch.Size(shape[1:]).numel() == layer.columns


@dataclass(frozen=True)
class _Naming:
    """A prefix that names of the moments lose, or one that they get."""

    off: str
    on: str

    @property
    def said(self) -> str:
        return f"with {self.on!r} before their names" if self.on else f"without {self.off!r} before their names"

    def name(self, own: str, there: frozenset[str]) -> str:
        """Return a name as the checkpoint has it; where it has none such, but the name as it is, that one."""
        new = self.on + own.removeprefix(self.off)
        return own if new not in there and own in there else new

    def applied(self, layer: Layer, there: frozenset[str]) -> Layer:
        weight, bias = (tuple(self.name(name, there) for name in own) for own in (layer.weight, layer.bias))
        return replace(layer, weight=weight, bias=bias)


def _candidates(layers: Sequence[Layer], there: frozenset[str]) -> Iterator[_Naming]:
    """Yield each prefix with which a name of one side becomes one of the other."""
    own = dict.fromkeys(name for layer in layers for name in layer.weight)
    off = dict.fromkeys(before for name in own for before, rest in _ends(name) if rest in there)
    on = dict.fromkeys(before for name in sorted(there) for before, rest in _ends(name) if rest in own)
    yield from (_Naming(before, "") for before in off)
    yield from (_Naming("", before) for before in on)


def _ends(name: str) -> Iterator[tuple[str, str]]:
    """Yield a name in two, at each of its dots: what stands before, the dot included, and what is left."""
    at = name.find(".")
    while at >= 0:
        yield name[: at + 1], name[at + 1 :]
        at = name.find(".", at + 1)


def _are_distinct(layers: Sequence[Layer], naming: _Naming, there: frozenset[str]) -> bool:
    own = dict.fromkeys(name for layer in layers for name in layer.tensors)
    return len({naming.name(name, there) for name in own}) == len(own)


def _is_in(layer: Layer, there: frozenset[str]) -> bool:
    return any(name in there for name in layer.weight)


def _name_in(layer: Layer, there: frozenset[str]) -> str:
    return next(name for name in layer.weight if name in there)


def _pairs(old: Layer, new: Layer) -> Iterable[tuple[str, str]]:
    return zip(new.tensors, old.tensors, strict=True)


def _two(names: Sequence[str]) -> str:
    return " and ".join(names[:2])
