"""What a projection is to a merge: a change of its vector, layer by layer, and the words of a recipe for one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

STRENGTH = 10.0  # λ, where a merge of checkpoints is given none


@dataclass(frozen=True)
class Project:
    """A projection as it was asked for: a file of moments and the strength λ."""

    moments: Path
    strength: float = STRENGTH


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

    def check(
        self, names: Sequence[str], shape: Callable[[str], tuple[int, ...]], where: str, among: Sequence[str]
    ) -> None:
        """Raise InputError where it is made for another model than one with all the names `among`."""
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
