"""A merge method with its settings: looked up, checked, and called on chunks."""

import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from negmerge import registry
from negmerge.errors import InputError, nearest
from negmerge.merging.methods import Place

WHOLE = Place()


class Merger:
    """A merge method with its settings checked.

    Raises InputError for an unknown method, a setting that it does not take, or a value that it refuses, and for a
    `seed` other than 0 where the method draws nothing.
    """

    def __init__(self, method: str, settings: Mapping[str, Any], seed: int = 0) -> None:
        module = registry.load("methods", method)
        if not hasattr(module, "merge"):
            raise InputError(f"method {method!r} does not merge checkpoints; it belongs to `negmerge run`")
        check_names(method, method_settings(module), settings)
        self.name = method
        self.settings = dict(settings)
        self.random: bool = getattr(module, "RANDOM", False)
        if seed and not self.random:
            raise InputError(f"method {method} draws nothing, so it takes no seed; leave --seed out")
        self.seed = seed
        self._module = module
        # The method is the judge of its values: ask it before files are opened.
        members = len(self.settings[self.per_member[0]]) if self._has_per_member() else 1
        self.merge(torch.ones(members, 1))

    @property
    def per_member(self) -> tuple[str, ...]:
        """The settings that are lists with one entry for each member."""
        names: tuple[str, ...] = getattr(self._module, "PER_MEMBER", ())
        return names

    def with_settings(self, settings: Mapping[str, Any]) -> "Merger":
        """Return the same method with other settings."""
        return Merger(self.name, settings, self.seed)

    def ordered(self, order: Sequence[int]) -> "Merger":
        """Return the same method with its lists for the members put in another order.

        Raises InputError for a list that is not as long as the pool.
        """
        if not self._has_per_member():
            return self
        changed = dict(self.settings)
        for key in self.per_member:
            values = changed[key]
            if len(values) != len(order):
                raise InputError(f"{self.name}: {key} has {len(values)} entries for {len(order)} members")
            changed[key] = [values[i] for i in order]
        return self.with_settings(changed)

    def merge(self, deltas: Tensor, device: str = "cpu", place: Place = WHOLE) -> tuple[Tensor, int]:
        """Return the merged delta [n], on the CPU, of deltas [N, n], and how many elements were kept."""
        deltas = deltas.to(device)
        more = {"place": Place(place.tensor, place.start, self.seed)} if self.random else {}
        with_mask = getattr(self._module, "merge_with_mask", None)
        if with_mask is None:
            return self._module.merge(deltas, **more, **self.settings).cpu(), deltas.shape[1]
        merged, mask = with_mask(deltas, **more, **self.settings)
        return merged.cpu(), int(torch.count_nonzero(mask))

    def _has_per_member(self) -> bool:
        return any(self.settings.get(key) is not None for key in self.per_member)


def check_names(method: str, known: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InputError for a setting that a method does not take; `known` are those that it takes."""
    for key in settings:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise InputError(f"method {method} does not take {key!r}{nearest(key, known)}; its settings: {takes}")


def method_settings(module: ModuleType) -> dict[str, Any]:
    """Return the settings of a merge method with their defaults: its keyword-only parameters, `place` left out."""
    parameters = inspect.signature(module.merge).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "place"}
