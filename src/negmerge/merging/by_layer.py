"""A merged vector changed layer by layer before it is applied: how a projection takes part in a merge."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from negmerge.checkpoints.base import elements
from negmerge.checkpoints.dtypes import Raw, exact, to_floats
from negmerge.merging.agreement import Effect
from negmerge.merging.applying import Floats, Outlet, add_step, no_effect
from negmerge.merging.passes.plain import CHUNK
from negmerge.merging.plan import Plan
from negmerge.merging.tally import Merged

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 2  # layers that are changed at a time: each needs its matrices in memory


class LayerChange(Protocol):
    """What changes a merged vector, a unit of tensors at a time; see `negmerge.projection.Projection`."""

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of the merge says of it."""
        ...

    @property
    def report(self) -> Any:
        """What was done, with `as_json()`, once all units are."""
        ...

    def check(self, names: Sequence[str], shape: Callable[[str], tuple[int, ...]], where: str) -> None:
        """Raise InputError where it is made for another model."""
        ...

    def check_weight(self, name: str, norm: float, where: str) -> None:
        """Raise InputError where a weight of the base, of this norm, is another model's."""
        ...

    def unit(self, name: str, merged: Iterable[str]) -> tuple[str, ...]:
        """Return the names that are changed together with one."""
        ...

    def apply(self, changes: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Return the changed tensors of a unit."""
        ...


class ByLayer:
    """Takes the pieces of τ in any order, from threads; a unit that is whole is changed and handed to `emit`.

    `emit(name, values)` gets each tensor of the changed vector once, flat. Only units that are not whole yet are held,
    and at most two are changed at a time; each on one thread, so that the numbers do not hang on how many there are.
    """

    def __init__(self, plan: Plan, change: LayerChange, emit: Callable[[str, Floats], None]) -> None:
        change.check(plan.merged, plan.base.shape, str(plan.base.path))
        self._plan, self._change, self._emit = plan, change, emit
        self._unit_of = _units_of(change, plan.merged)
        self._pieces: dict[str, dict[int, Floats]] = {}
        self._missing = {unit: sum(plan.sizes[name] for name in unit) for unit in dict.fromkeys(self._unit_of.values())}
        self._lock, self._few = threading.Lock(), threading.BoundedSemaphore(AT_ONCE)

    def outlet(self) -> Outlet:
        """Return where the merge is to put its vector."""
        return Outlet(lambda name: exact(self._plan.base.dtype(name)), self.put, vector=True)

    def put(self, name: str, start: int, values: Raw) -> None:
        """Take a piece of τ of the flattened tensor `name`."""
        unit = self._unit_of[name]
        with self._lock:
            self._pieces.setdefault(name, {})[start] = values.copy()  # it may be a row of the whole chunk
            self._missing[unit] -= len(values)
            whole = self._missing[unit] == 0
            taken = {own: self._pieces.pop(own, {}) for own in unit} if whole else {}
        if whole:
            with self._few:
                self._finish(taken)

    def _finish(self, taken: Mapping[str, Mapping[int, Floats]]) -> None:
        import torch

        changes = {}
        for name, pieces in taken.items():
            shape = self._plan.base.shape(name)
            flat = np.concatenate([pieces[at] for at in sorted(pieces)]) if pieces else np.empty(0, np.float32)
            changes[name] = torch.from_numpy(flat).reshape(shape)
        for name, value in self._change.apply(changes).items():
            self._emit(name, value.reshape(-1).numpy())


def _units_of(change: LayerChange, merged: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the unit of each merged tensor."""
    found: dict[str, tuple[str, ...]] = {}
    for name in merged:
        if name not in found:
            unit = change.unit(name, merged)
            found |= dict.fromkeys(unit, unit)
    return found


class AppliedByLayer:
    """A vector that is changed layer by layer and applied to the base's weights, with the effect on OUT."""

    def __init__(self, plan: Plan, change: LayerChange, outlet: Outlet) -> None:
        self._plan, self._change, self._outlet = plan, change, outlet
        self._effects: dict[str, Floats] = {}
        self.by_layer = ByLayer(plan, change, self._apply)

    def merged(self, found: Merged) -> Merged:
        """Return what a merge found, with the effect of the changed vector."""
        effect = no_effect()
        for name in self._plan.merged:  # in one order, whatever the threads did
            effect += self._effects.get(name, no_effect())
        total = sum(self._plan.sizes.values())
        return Merged(found.counts, found.agreements, Effect.of(total, effect))

    def _apply(self, name: str, delta: Floats) -> None:
        (term,), base = self._plan.terms, self._plan.base
        dtype, effect, squares = base.dtype(name), no_effect(), 0.0
        for start in range(0, elements(base.shape(name)), CHUNK):
            stop = min(start + CHUNK, len(delta))
            raw = base.raw(name, start, stop)
            origin = to_floats(raw, dtype)
            squares += float(np.sum(origin.astype(np.float64) ** 2))
            values = add_step(origin, delta[start:stop], term.alpha, term.add)
            with np.errstate(over="ignore", invalid="ignore"):
                effect += self._outlet.put(name, start, raw, dtype, values, values - origin)
        self._change.check_weight(name, squares**0.5, str(base.path))
        self._effects[name] = effect
