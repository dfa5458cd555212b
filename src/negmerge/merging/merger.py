"""A merge method with its settings: looked up, checked, and called on chunks."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from negmerge import registry
from negmerge.errors import InputError, nearest
from negmerge.merging.methods import GIVEN, WHOLE, Place

FOR_SOME = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)


class Merger:
    """A merge method with its settings checked; `KEY[REGEX]` is a setting for the tensors whose name matches.

    Where several patterns match a name, the last one given holds. Raises InputError for an unknown method, a setting
    that it does not take, or a value that it refuses, and for a `seed` other than 0 where the method draws nothing.
    """

    def __init__(self, method: str, settings: Mapping[str, Any], seed: int = 0) -> None:
        module = registry.load("methods", method)
        if not hasattr(module, "merge"):
            raise InputError(f"method {method!r} does not merge checkpoints; it belongs to `negmerge run`")
        self.name = method
        self.settings = dict(settings)
        self._module = module
        self._common, self._special = _split(self.settings)
        self._names: dict[str, list[str]] = {}  # of tied tensors, by the name that merges
        check_names(method, method_settings(module), [*self._common, *(key for key, _, _ in self._special)])
        self.random = draws(method)
        if seed and not self.random:
            raise InputError(f"method {method} draws nothing, so it takes no seed; leave --seed out")
        self.seed = seed
        self._check_scope()
        # The method is the judge of its values: ask it before files are opened.
        for _, _, extra in [("", None, {}), *self._special]:
            self._ask({**self._common, **extra})

    @property
    def per_member(self) -> tuple[str, ...]:
        """The settings that are lists with one entry for each member."""
        names: tuple[str, ...] = getattr(self._module, "PER_MEMBER", ())
        return names

    @property
    def statistics(self) -> ModuleType | None:
        """The module, where its method wants something known of whole tensors first."""
        return self._module if self._module.REACH == "statistics" else None

    @property
    def scope(self) -> str:
        """What the statistics are of: each tensor, or the model."""
        return str(self._common.get("scope", "tensor"))

    def at(self, name: str) -> dict[str, Any]:
        """Return the settings for one tensor."""
        found = dict(self._common)
        for _, pattern, extra in self._special:
            if name and any(pattern.search(own) for own in self._names.get(name, [name])):
                found.update(extra)
        return found

    def groups(self, names: Iterable[str]) -> list[tuple["Merger", list[str]]]:
        """Return the method with the settings of each group of tensors that share theirs, in the names' order."""
        if not self._special:
            return [(self, list(names))]
        found: dict[str, tuple[Merger, list[str]]] = {}
        for name in names:
            settings = self.at(name)
            found.setdefault(repr(settings), (Merger(self.name, settings, self.seed), []))[1].append(name)
        return list(found.values())

    def fitted(self, names: Sequence[str], order: Sequence[int], tied: Mapping[str, str] | None = None) -> "Merger":
        """Return the method for a pool: its lists for the members put in the pool's order.

        `tied` maps further names of tensors to the one of `names`; a pattern finds a tensor by any of them.
        Raises InputError for a list that is not as long as the pool, and a pattern that is found in no name.
        """
        for key, pattern, _ in self._special:
            if not any(pattern.search(name) for name in (*names, *(tied or ()))):
                example = f", such as {names[0]!r}" if names else ""
                raise InputError(f"{key}[{pattern.pattern}] matches none of the {len(names)} merged names{example}")
        changed = dict(self.settings)
        for key, values in self.settings.items():
            if key.partition("[")[0] not in self.per_member or values is None:
                continue
            if len(values) != len(order):
                raise InputError(f"{self.name}: {key} has {len(values)} entries for {len(order)} members")
            changed[key] = [values[i] for i in order]
        fitted = Merger(self.name, changed, self.seed)
        for name, own in (tied or {}).items():
            fitted._names.setdefault(own, [own]).append(name)
        return fitted

    def merge(
        self, deltas: Tensor, device: str = "cpu", place: Place = WHOLE, statistic: Tensor | None = None
    ) -> tuple[Tensor, int]:
        """Return the merged delta [n], on the CPU, of deltas [N, n], and how many elements were kept."""
        deltas = deltas.to(device)
        given: dict[str, Any] = {}
        if self.random:
            given["place"] = Place(place.tensor, place.start, self.seed)
        if statistic is not None:
            given["statistic"] = statistic.to(device)
        settings = self.at(place.tensor)
        with_mask = getattr(self._module, "merge_with_mask", None)
        if with_mask is None:
            return self._module.merge(deltas, **given, **settings).cpu(), deltas.shape[1]
        merged, mask = with_mask(deltas, **given, **settings)
        return merged.cpu(), int(torch.count_nonzero(mask))

    def _ask(self, settings: Mapping[str, Any]) -> None:
        lists = [settings[key] for key in self.per_member if isinstance(settings.get(key), list | tuple)]
        self._module.merge(torch.ones(len(lists[0]) if lists else 1, 1), **settings)

    def _check_scope(self) -> None:
        if any(key == "scope" for key, _, _ in self._special):
            raise InputError(f"method {self.name}: scope holds for all tensors; give it without [REGEX]")
        if self._special and self.scope == "model":
            raise InputError(
                f"method {self.name}: with scope=model the settings hold for all tensors; leave [REGEX] out"
            )


def draws(method: str) -> bool:
    """Return whether a merge method draws random numbers, and so takes a seed."""
    return bool(getattr(registry.load("methods", method), "RANDOM", False))


def check_names(method: str, known: Mapping[str, Any], settings: Iterable[str]) -> None:
    """Raise InputError for a setting that a method does not take; `known` are those that it takes."""
    for key in settings:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise InputError(f"method {method} does not take {key!r}{nearest(key, known)}; its settings: {takes}")


def method_settings(module: ModuleType) -> dict[str, Any]:
    """Return the settings of a merge method with their defaults: its keyword-only parameters but those it is given."""
    parameters = inspect.signature(module.merge).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in GIVEN}


def _split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, re.Pattern[str], dict[str, Any]]]]:
    """Return the settings for all tensors, and those for some: name, pattern, and the setting itself."""
    common: dict[str, Any] = {}
    special = []
    for key, value in settings.items():
        found = FOR_SOME.fullmatch(key)
        if not found:
            common[key] = value
            continue
        try:
            special.append((found[1], re.compile(found[2]), {found[1]: value}))
        except re.error as error:
            raise InputError(f"{key}: {found[2]!r} is not a regular expression: {error}") from None
    return common, special
