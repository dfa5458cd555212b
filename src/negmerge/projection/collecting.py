"""Second moments of the inputs of every layer, in one pass over rows, by hooks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from negmerge.projection.inputs import Arguments, Slot, find_slots, lies_turned, real_rows
from negmerge.projection.layers import Layer

WIDE = 2048  # inputs up to which products are taken in float64; beyond, in float32, added up in float64
PIECE = 2**23  # elements of unfolded inputs at a time

Batches = Callable[[], Iterable[Any]]
Forward = Callable[[nn.Module, Any], Any]
Real = Callable[[Any], Tensor | None]


@dataclass(frozen=True)
class Source:
    """A place whose inputs are seen, with the size of their moments: [groups, columns, columns], or [columns] counts.

    `ones` says that a column of ones stands last, for the biases of the layers that share the inputs, `turned` that the
    inputs were seen to lie as [length, rows, …], or as [rows, length, …]; None where that is not known.
    """

    slot: Slot
    columns: int
    ones: bool = False
    turned: bool | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its moments."""
        if self.slot.unfold is None:
            return (self.columns,)
        return (self.slot.groups, self.columns + self.ones, self.columns + self.ones)

    @property
    def wide(self) -> bool:
        """Whether its moments are kept in float64."""
        return self.columns <= WIDE

    @property
    def elements(self) -> int:
        """The number of elements of its moments."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Survey:
    """The layers of a model whose inputs can be seen, the sources of their moments, and the tensors that have none."""

    layers: tuple[Layer, ...]
    sources: Mapping[str, Source]
    added: Mapping[str, str]  # places whose inputs are added to those of another, which has the same weight
    unseen: tuple[str, ...]  # trained tensors of two dimensions or more without a layer

    def without(self, places: Collection[str]) -> "Survey":
        """Return it without the layers that need the moments of some places: their tensors are unseen, too."""
        gone = [layer for layer in self.layers if layer.source in places or layer.tokens in places]
        kept = tuple(layer for layer in self.layers if layer not in gone)
        needed = {place for layer in kept for place in (layer.source, layer.tokens)}  # asked for membership only
        seen = {name for layer in kept for name in layer.tensors}  # likewise
        added = {own: to for own, to in self.added.items() if to in needed}
        sources = {own: found for own, found in self.sources.items() if own in needed or own in added}
        unseen = [layer.weight[0] for layer in gone if layer.weight[0] not in seen]
        return Survey(kept, sources, added, (*self.unseen, *dict.fromkeys(unseen)))


def survey(
    model: nn.Module,
    forward: Forward,
    batch: Any,
    share: bool = True,
    *,
    further: Iterable[Any] = (),
    real: Real = lambda _: None,
) -> Survey:
    """Pass one batch, of few rows, through a model and return what of it the projection can see.

    Modules that were not called are looked for in the `further` batches: a model may choose by the row which it calls.
    By the mask `real(batch)` of a batch of unlike sizes, such as a single row, is told which way inputs lie.

    Layers that get the same tensor share one source, unless `share` is off. Left unseen are weights of other kinds of
    layers, parametrised ones, those of modules that were not called, or once for all rows (the text tower of a CLIP,
    whose prompts are the same for all), and tensors that are used in several ways, but for an embedding that is the
    output layer as well.
    """
    slots = find_slots(model)
    calls: dict[str, list[tuple[Tensor, int]]] = {slot.place: [] for slot in slots}
    turned: dict[str, bool | None] = {}

    def look(batch: Any, at: Sequence[Slot]) -> None:
        mask = real(batch)

        def note(slot: Slot, found: Tensor) -> None:
            calls[slot.place].append((found, 0 if found.is_inference() else found._version))
            if turned.get(slot.place) is None and mask is not None:
                turned[slot.place] = lies_turned(found.shape if slot.unfold is None else found.shape[:-1], mask)

        with _hooked(model, at, note):
            forward(model, batch)

    with torch.no_grad():
        forward(model, batch)  # what is computed once and kept is not called again below
        look(batch, slots)
        rest = iter(further)
        while (missing := [slot for slot in slots if not calls[slot.place]]) and (more := [*islice(rest, 1)]):
            look(more[0], missing)
    called = [slot for slot in slots if calls[slot.place]]
    leaders: dict[tuple[Any, ...], str] = {}
    followers = {}
    for slot in called:
        (tensor, version), *more = calls[slot.place]
        if more or slot.unfold is None or not share or slot.part == "output":
            continue
        leader = leaders.setdefault((id(tensor), version, slot.geometry), slot.place)
        if leader != slot.place:
            followers[slot.place] = leader
    columns = {slot.place: _columns_of(slot, calls[slot.place][0][0], model) for slot in called}
    found = _described(model, called, followers, columns)
    sources = {place: replace(source, turned=turned.get(place)) for place, source in found.sources.items()}
    return replace(found, sources=sources)


def _columns_of(slot: Slot, seen: Tensor, model: nn.Module) -> int:
    if slot.unfold is None:
        return len(model.get_submodule(slot.module).get_parameter(slot.weight))
    return int(slot.unfold(seen).shape[-1])


def _described(
    model: nn.Module, slots: Sequence[Slot], followers: Mapping[str, str], columns: Mapping[str, int]
) -> Survey:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)

    def names_of(slot: Slot, parameter: str | None) -> tuple[str, ...]:
        if parameter is None:
            return ()
        return tuple(names[id(model.get_submodule(slot.module).get_parameter(parameter))])

    layers: dict[tuple[Any, ...], Layer] = {}
    leader_of: dict[str, str] = {}  # of places whose inputs are added to those of another
    spoilt: dict[str, None] = {}
    for slot in slots:
        place = followers.get(slot.place, slot.place)
        weight, bias = names_of(slot, slot.weight), names_of(slot, slot.bias)
        kind = slot.kind
        tokens = place if kind == "embedding" else ""
        new = Layer(
            kind, weight, bias, slot.rows, slot.groups, columns[slot.place], False, "" if tokens else place, tokens
        )
        key = (weight, slot.rows)
        there = layers.get(key)
        if there is None:
            layers[key] = new
        elif {there.kind, kind} == {"embedding", "linear"} and not (there.bias or bias):
            source = there.source or new.source
            width = there.columns if there.kind == "linear" else new.columns
            layers[key] = replace(
                there, kind="tied-embedding", columns=width, source=source, tokens=there.tokens or new.tokens
            )
        elif there.kind == kind and there.bias == bias:
            leader_of[place] = there.source or there.tokens
        else:
            spoilt |= dict.fromkeys(weight)
    kept = [layer for layer in layers.values() if layer.weight[0] not in spoilt]
    kept = [replace(layer, source=leader_of.get(layer.source, layer.source)) for layer in kept]
    with_ones = {layer.source for layer in kept if layer.bias}
    kept = [replace(layer, ones=layer.source in with_ones) for layer in kept]
    needed = {layer.source for layer in kept} | {layer.tokens for layer in kept}
    sources = {
        slot.place: Source(slot, columns[slot.place], slot.place in with_ones)
        for slot in slots
        if slot.place in needed or leader_of.get(slot.place) in needed
    }
    for place, leader in leader_of.items():  # added to the leader's moments, so of its shape
        if place in sources and leader in sources:
            sources[place] = replace(sources[place], ones=sources[leader].ones)
    seen = {name for layer in kept for name in layer.tensors}
    unseen = tuple(own[0] for i, own in names.items() if own[0] not in seen and model.get_parameter(own[0]).dim() > 1)
    return Survey(tuple(kept), sources, {own: to for own, to in leader_of.items() if to in needed}, unseen)


def collect(
    model: nn.Module,
    found: Survey,
    places: Sequence[str],
    batches: Iterable[Any],
    forward: Forward,
    real: Real = lambda _: None,
) -> dict[str, Tensor]:
    """Return the second moments of the inputs of some sources over all batches, on the CPU, in one pass.

        C = E[x xᵀ] over rows, tokens and places; of token numbers, their shares

    float64 [groups, n, n] for up to 2,048 inputs, float32 beyond; counts are float64 [n]. `real(batch)` is a mask
    [rows, length] of the tokens that count, or None. The model is used as it is; it should be in evaluation mode. A
    source is left out whose module no batch reaches.
    """
    wanted = dict.fromkeys(places)
    sums = {place: _Sum(found.sources[place]) for place in places}
    to = {place: place for place in places}
    to |= {place: leader for place, leader in found.added.items() if leader in wanted}
    slots = [found.sources[place].slot for place in to]
    state: dict[str, Tensor | None] = {"real": None}

    def add(slot: Slot, inputs: Tensor) -> None:
        sums[to[slot.place]].add(slot, inputs, state["real"], found.sources[slot.place].turned)

    with _hooked(model, slots, add), torch.no_grad():
        for batch in batches:
            state["real"] = real(batch)
            forward(model, batch)
    return {place: total.moments() for place, total in sums.items() if total.rows}


class _Sum:
    """Adds up x xᵀ, or token counts."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._total: Tensor | None = None
        self.rows = 0

    def add(self, slot: Slot, inputs: Tensor, real: Tensor | None, turned: bool | None) -> None:
        """Add the inputs of one call."""
        if slot.unfold is None:
            ids = real_rows(inputs.reshape(1, -1, 1), (*inputs.shape, 1), real, turned).flatten()
            self._add(torch.bincount(ids, minlength=self._source.columns).double(), len(ids))
            return
        whole = inputs if slot.kind not in ("conv", "conv-transposed") else None
        for part in [inputs] if whole is not None else self._cut(slot, inputs):
            rows = slot.unfold(part)
            if whole is not None:
                rows = real_rows(rows, part.shape, None if real is None else real.to(part.device), turned)
            for piece in rows.split(max(1, PIECE // max(1, rows.shape[0] * rows.shape[2])), dim=1):
                self._add(self._product(piece), piece.shape[1])

    def _cut(self, slot: Slot, images: Tensor) -> Iterable[Tensor]:
        """Return images in parts whose unfolded form is of bounded size."""
        if images.dim() < len(slot.geometry[1]) + 2:
            return [images]
        kernel, stride = (torch.Size(size).numel() for size in slot.geometry[1:3])
        each = images[0].numel() * kernel * (stride if slot.kind == "conv-transposed" else 1)
        return tuple(images.split(max(1, PIECE // max(1, each))))

    def _product(self, rows: Tensor) -> Tensor:
        narrow = rows.device.type == "mps" or not self._source.wide
        x = rows.float() if narrow else rows.double()
        if self._source.ones:
            x = torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)
        with torch.autocast(x.device.type, enabled=False):  # of the pass that is looked at: its products are no moments
            return x.transpose(1, 2) @ x

    def _add(self, part: Tensor, rows: int) -> None:
        own = part.cpu() if part.device.type == "mps" else part
        if self._total is None:
            self._total = torch.zeros(self._source.shape, dtype=torch.float64, device=own.device)
        self._total += own
        self.rows += rows

    def moments(self) -> Tensor:
        """Return the mean over all rows."""
        assert self._total is not None and self.rows
        mean = (self._total / self.rows).cpu()
        return mean if self._source.wide or mean.dim() == 1 else mean.float()


@contextmanager
def _hooked(model: nn.Module, slots: Sequence[Slot], see: Callable[[Slot, Tensor], None]) -> Iterator[None]:
    """Call see(slot, inputs) for each call of the modules of some slots inside the block.

    Modules are then computed one by one: the fused path of attention, which calls none, is off.
    """
    by_module: dict[str, list[Slot]] = {}
    for slot in slots:
        by_module.setdefault(slot.module, []).append(slot)
    busy = False  # the hook of an attention calls it again

    def hook_of(own: list[Slot]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            nonlocal busy
            if busy:
                return
            busy = True
            try:
                arguments: Arguments = given, named
                for slot in own:
                    see(slot, slot.find(arguments))
            finally:
                busy = False

        return hook

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    handles = [
        model.get_submodule(name).register_forward_pre_hook(hook_of(own), with_kwargs=True)
        for name, own in by_module.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        torch.backends.mha.set_fastpath_enabled(fast)
