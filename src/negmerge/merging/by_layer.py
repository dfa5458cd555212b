"""Merged vectors changed layer by layer before they are applied: how projections take part in a merge."""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from negmerge.checkpoints.dtypes import Raw, exact, to_floats
from negmerge.merging.agreement import Effect
from negmerge.merging.applying import Floats, Outlet, add_step, no_effect
from negmerge.merging.layer_change import LayerChange
from negmerge.merging.passes.plain import CHUNK
from negmerge.merging.plan import Plan
from negmerge.merging.tally import Merged
from negmerge.merging.term import Term

AT_ONCE = 2  # layers that are changed at a time: each needs its matrices in memory


class ByLayer:
    """Takes the pieces of τ of one term in any order, from threads; a unit that is whole is changed and goes to `emit`.

    `emit(name, values)` gets each tensor of the term's vector once, flat, changed if the term has a change. Only units
    that are not whole yet are held, and at most two are changed at a time; each on one thread, so that the numbers do
    not hang on how many there are.
    """

    def __init__(self, plan: Plan, term: Term, emit: Callable[[str, Floats], None]) -> None:
        merged = [name for name in plan.merged if name in term.pool.merged_set]
        if term.change is not None:
            term.change.check(merged, plan.base.shape, str(plan.base.path), plan.base.names)
        self._plan, self._change, self._emit = plan, term.change, emit
        self._unit_of = _units_of(term.change, merged)
        self._pieces: dict[str, dict[int, Floats]] = {}
        self._missing = {unit: sum(plan.sizes[name] for name in unit) for unit in dict.fromkeys(self._unit_of.values())}
        self._lock, self._few = threading.Lock(), threading.BoundedSemaphore(AT_ONCE)

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
        for name, value in (changes if self._change is None else self._change.apply(changes)).items():
            self._emit(name, value.reshape(-1).numpy())


def vector_outlet(plan: Plan, layers: Sequence[ByLayer]) -> Outlet:
    """Return where a merge is to put its vectors, those of the terms apart."""

    def put(name: str, start: int, values: Raw, term: int = 0) -> None:
        layers[term].put(name, start, values)

    return Outlet(lambda name: exact(plan.base.dtype(name)), put, vector=True, by_term=len(layers) > 1)


def _units_of(change: LayerChange | None, merged: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the unit of each merged tensor."""
    found: dict[str, tuple[str, ...]] = {}
    for name in merged:
        if name not in found:
            unit = (name,) if change is None else change.unit(name, merged)
            found |= dict.fromkeys(unit, unit)
    return found


class AppliedByLayer:
    """Vectors of terms, changed layer by layer and applied to the base's weights in their order; the effect on OUT.

    A tensor is written once all terms that have it have it whole.
    """

    def __init__(self, plan: Plan, outlet: Outlet) -> None:
        self._plan, self._outlet = plan, outlet
        self._effects: dict[str, Floats] = {}
        self._waiting: dict[str, dict[int, Floats]] = {}
        self._lock = threading.Lock()
        self._terms_of = {
            name: [i for i, term in enumerate(plan.terms) if name in term.pool.merged_set] for name in plan.merged
        }
        self.outlet = vector_outlet(plan, [ByLayer(plan, t, partial(self._take, i)) for i, t in enumerate(plan.terms)])

    def merged(self, found: Merged) -> Merged:
        """Return what a merge found, with the effect of the changed vectors."""
        effect = no_effect()
        for name in self._plan.merged:  # in one order, whatever the threads did
            effect += self._effects.get(name, no_effect())
        total = sum(self._plan.sizes.values())
        return Merged(found.counts, found.agreements, Effect.of(total, effect))

    def _take(self, term: int, name: str, delta: Floats) -> None:
        with self._lock:
            deltas = self._waiting.setdefault(name, {})
            deltas[term] = delta
            whole = len(deltas) == len(self._terms_of[name])
            if whole:
                del self._waiting[name]
        if whole:
            self._apply(name, deltas)

    def _apply(self, name: str, deltas: Mapping[int, Floats]) -> None:
        base, size = self._plan.base, self._plan.sizes[name]
        dtype, effect, squares = base.dtype(name), no_effect(), 0.0
        for start in range(0, size, CHUNK):
            stop = min(start + CHUNK, size)
            raw = base.raw(name, start, stop)
            values = origin = to_floats(raw, dtype)
            squares += float(np.sum(origin.astype(np.float64) ** 2))
            for i in self._terms_of[name]:
                term = self._plan.terms[i]
                values = add_step(values, deltas[i][start:stop], term.alpha, term.add)
            with np.errstate(over="ignore", invalid="ignore"):
                effect += self._outlet.put(name, start, raw, dtype, values, values - origin)
        for i in self._terms_of[name]:
            change = self._plan.terms[i].change
            if change is not None:
                change.check_weight(name, squares**0.5, str(base.path))
        self._effects[name] = effect
