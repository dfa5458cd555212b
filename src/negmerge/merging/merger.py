"""A merge method with its settings: looked up, checked, and called on chunks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from negmerge.checking import MistakesError, checked
from negmerge.errors import InputError
from negmerge.merging.method import WHOLE, MergeSettings, Place, load_method

if TYPE_CHECKING:
    from torch import Tensor

FOR_SOME = re.compile(r"(\w+)\[(.*)\]", re.DOTALL)


class _Special(NamedTuple):
    """A setting for the tensors whose name matches."""

    key: str
    pattern: re.Pattern[str]
    value: Any


class Merger:
    """A merge method with its settings checked; `KEY[REGEX]` is a setting for the tensors whose name matches.

    Where several patterns match a name, the last one given holds. `settings` are those given, without the defaults, in
    the types of the method's `Settings` (1 for a share is 1.0), so that equal settings are recorded alike.

    Raises InputError for an unknown method and, with a line for each, for settings that the method does not take,
    values that it refuses, and a `seed` other than 0 where the method draws nothing.
    """

    def __init__(self, method: str, settings: Mapping[str, Any], seed: int = 0) -> None:
        self.method = load_method(method)
        self.name = method
        self.random = self.method.random
        self.seed = seed
        self._common: dict[str, Any] = {}
        self._special: list[_Special] = []
        self._known: dict[str, MergeSettings] = {}
        self._names: dict[str, list[str]] = {}  # of tied tensors, by the name that merges
        wrong = [*self._split(settings), *self._wrong_values(), *self._wrong_scope()]
        if seed and not self.random:
            wrong.append("it draws nothing, so it takes no seed; leave --seed out")
        if wrong:
            raise MistakesError(f"method {method}", wrong)
        self.settings = {key: self._typed(key, value) for key, value in settings.items()}

    @property
    def scope(self) -> str:
        """The tensors that are counted together: those of one name ("tensor"), or all ("model")."""
        return str(getattr(self.at(""), "scope", "tensor"))

    def at(self, name: str) -> MergeSettings:
        """Return the settings for one tensor; for the name "" those that hold where no pattern matches."""
        name = name if self._special else ""
        if name not in self._known:
            own = self._names.get(name, [name] if name else [])
            special = {item.key: item.value for item in self._special if any(map(item.pattern.search, own))}
            self._known[name] = checked(self.method.settings, {**self._common, **special}, f"method {self.name}")
        return self._known[name]

    def groups(self, names: Iterable[str]) -> list[tuple[Merger, list[str]]]:
        """Return the method with the settings of each group of tensors that share theirs, in the names' order."""
        if not self._special:
            return [(self, list(names))]
        found: dict[str, tuple[Merger, list[str]]] = {}
        for name in names:
            settings = self.at(name)
            key = repr(settings)
            if key not in found:
                found[key] = Merger(self.name, dict(settings), self.seed), []
            found[key][1].append(name)
        return list(found.values())

    def fitted(self, names: Sequence[str], order: Sequence[int], tied: Mapping[str, str] | None = None) -> Merger:
        """Return the method for a pool: its lists for the members put in the pool's order.

        `tied` maps further names of tensors to the one of `names`; a pattern finds a tensor by any of them. Raises
        InputError for settings that do not fit so many members, and a pattern that is found in no name.
        """
        for item in self._special:
            if not any(item.pattern.search(name) for name in (*names, *(tied or ()))):
                example = f", such as {names[0]!r}" if names else ""
                label = f"{item.key}[{item.pattern.pattern}]"
                raise InputError(f"{label} matches none of the {len(names)} merged names{example}")
        self._knowing(tied).check_members(len(order), names)
        changed = dict(self.settings)
        for key, values in self.settings.items():
            if key.partition("[")[0] in self.method.settings.per_member() and values is not None:
                changed[key] = [values[i] for i in order]
        return Merger(self.name, changed, self.seed)._knowing(tied)

    def _knowing(self, tied: Mapping[str, str] | None) -> Merger:
        """Return the same method, which knows the further names of tied tensors."""
        if not tied:
            return self
        found = Merger(self.name, self.settings, self.seed)
        for name, first in tied.items():
            found._names.setdefault(first, [first]).append(name)
        return found

    def check_members(self, members: int, names: Iterable[str] = ()) -> None:
        """Raise InputError where the settings of a tensor do not fit a pool of so many members.

        Without `names` the settings for all tensors are checked, where no pattern changes them for some.
        """
        for name in names or ([] if self._special else [""]):
            try:
                self.at(name).check_members(members)
            except InputError as error:
                raise InputError(f"method {self.name}: {error}") from None

    def merge(
        self, deltas: Tensor, device: str = "cpu", place: Place = WHOLE, statistic: Tensor | None = None
    ) -> tuple[Tensor, int]:
        """Return the merged delta [n], on the CPU, of deltas [N, n], and how many elements were kept."""
        import torch

        where = "cpu" if device == "mps" and deltas.dtype == torch.float64 else device  # mps has no float64
        given = None if statistic is None else statistic.to(where)
        merged, kept = self.merge_there(deltas.to(where), place, given)
        return merged.cpu(), kept

    def merge_there(self, deltas: Tensor, place: Place, statistic: Tensor | None) -> tuple[Tensor, int]:
        """Return the merged delta [n], on the device of the deltas [N, n], and how many elements were kept."""
        import torch

        own = Place(place.tensor, place.start, self.seed)
        found = self.method.merge(deltas, self.at(place.tensor), own, statistic)
        return found.delta, deltas.shape[1] if found.mask is None else int(torch.count_nonzero(found.mask))

    def _typed(self, label: str, value: Any) -> Any:
        """Return the value of a setting as the method's `Settings` hold it."""
        key = label.partition("[")[0]
        return getattr(checked(self.method.settings, {**self._common, key: value}), key)

    def _split(self, settings: Mapping[str, Any]) -> list[str]:
        """Sort the settings into those for all tensors and those for some; return a line for each bad pattern."""
        wrong = []
        for key, value in settings.items():
            found = FOR_SOME.fullmatch(key)
            if not found:
                self._common[key] = value
                continue
            try:
                self._special.append(_Special(found[1], re.compile(found[2]), value))
            except re.error as error:
                wrong.append(f"{key}: {found[2]!r} is not a regular expression: {error}")
        return wrong

    def _wrong_values(self) -> list[str]:
        wrong = self._refused({})
        for key, pattern, value in self._special:
            new = [line for line in self._refused({key: value}) if line not in wrong]
            label = f"{key}[{pattern.pattern}] "
            wrong += [label + line.removeprefix(f"{key} ") if line.startswith(f"{key} ") else line for line in new]
        return wrong

    def _refused(self, changes: Mapping[str, Any]) -> list[str]:
        """Return a line for each of the common settings, with changes, that the method refuses."""
        try:
            checked(self.method.settings, {**self._common, **changes})
        except MistakesError as error:
            return error.lines
        return []

    def _wrong_scope(self) -> list[str]:
        if any(item.key == "scope" for item in self._special):
            return ["scope holds for all tensors; give it without [REGEX]"]
        if self._special and self._common.get("scope") == "model":
            return ["with scope=model the settings hold for all tensors; leave [REGEX] out"]
        return []


def draws(method: str) -> bool:
    """Return whether a merge method draws random numbers, and so takes a seed."""
    return load_method(method).random
