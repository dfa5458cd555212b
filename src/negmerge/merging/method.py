"""What a merge method is: the names that its module declares, with the defaults of those that it leaves out.

A module declares `SUMMARY` (one line), `REFERENCE` (its source), `REACH`, a class `Settings` and a function `merge`,
and imports torch only inside its functions, so that listing methods and compiled merges start without it:

    class Settings(MergeSettings):
        scale: float = Field(1.0, gt=0, description="multiplies the mean")

    def merge(deltas, settings, place=WHOLE, statistic=None):
        return Merged(deltas.mean(0) * settings.scale)

* `REACH = "element"`: each element of the result depends on that element of the deltas alone, so tensors are cut
  anywhere. `REACH = "statistics"`: a pass over each tensor (over the model with the setting scope="model") comes first,
  and its result is handed to `merge` as `statistic`; without it `merge` takes the deltas for the whole tensor.
* A method of reach `statistics` has either `ranks(count, settings)`, the ranks of magnitude (1 is the largest) whose
  values it wants of each member: `statistic` is [N, ranks]; or `count(deltas, settings) -> int`, which is summed over
  the chunks: `statistic` is its share of the elements, float64 [].
* `RANDOM = True`: the method draws random numbers, by `place`, so that chunks and threads do not change them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from negmerge import registry
from negmerge.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

MERGE_NEEDS = ("pool", "forget")  # data that a row of the result table uses, where it merges
PER_MEMBER = "one entry for each member"  # in the annotation of a setting: Annotated[list[float], PER_MEMBER]


@dataclass(frozen=True)
class Place:
    """Where a chunk lies: the name of the tensor, its first element there, and the seed of the merge."""

    tensor: str = ""
    start: int = 0
    seed: int = 0


WHOLE = Place()


class Merged(NamedTuple):
    """A merged task vector [n], and the boolean mask [n] of the elements that were kept; None: all were."""

    delta: Tensor
    mask: Tensor | None = None


class MergeSettings(BaseModel):
    """The settings of a merge method: typed, with bounds and descriptions; unknown keys are refused.

    Whole numbers are numbers; booleans and texts are none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def per_member(cls) -> tuple[str, ...]:
        """Return the settings that are lists with one entry for each member, in the order given."""
        return tuple(name for name, field in cls.model_fields.items() if PER_MEMBER in field.metadata)

    def check_members(self, members: int) -> None:
        """Raise InputError where the settings do not fit a pool of so many members."""
        for name in self.per_member():
            values = getattr(self, name)
            if values is not None and len(values) != members:
                raise InputError(f"{name} has {len(values)} entries for {members} members; it needs one for each")


class MergeFunction(Protocol):
    """`merge` of a method: deltas [N, n], float32 or float64, to a new [n] of the same dtype."""

    def __call__(self, deltas: Tensor, settings: Any, place: Place = ..., statistic: Tensor | None = ...) -> Merged:
        """Merge a chunk of task vectors that lies at `place`."""
        ...


class RanksFunction(Protocol):
    """`ranks` of a method: which magnitudes of each member it wants, of `count` elements."""

    def __call__(self, count: int, settings: Any) -> tuple[int, ...]:
        """Return the ranks, 1 is the largest."""
        ...


class CountFunction(Protocol):
    """`count` of a method: how many elements of a chunk have the property whose share it wants."""

    def __call__(self, deltas: Tensor, settings: Any) -> int:
        """Count them in deltas [N, n]."""
        ...


@dataclass(frozen=True)
class MergeMethod:
    """A merge method as its module declares it."""

    name: str
    summary: str
    reference: str
    reach: Literal["element", "statistics"]
    settings: type[MergeSettings]
    merge: MergeFunction
    random: bool = False
    ranks: RanksFunction | None = None
    count: CountFunction | None = None

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings with their defaults."""
        return {
            name: field.get_default(call_default_factory=True) for name, field in self.settings.model_fields.items()
        }


REQUIRED = {"summary": "SUMMARY", "reference": "REFERENCE", "reach": "REACH", "settings": "Settings", "merge": "merge"}
OPTIONAL = {"random": "RANDOM", "ranks": "ranks", "count": "count"}


def load_method(name: str) -> MergeMethod:
    """Return the merge method registered as `name`.

    Raises InputError for an unknown name, a method that is no merge, and a module that lacks a declaration.
    """
    module = registry.load("methods", name)
    if not merges(module):
        raise InputError(f"method {name!r} does not merge checkpoints; it belongs to `negmerge run`")
    return declared(name, vars(module))


def merges(module: ModuleType) -> bool:
    """Return whether a module of the registered methods is a merge method."""
    return hasattr(module, "merge")


def declared(name: str, found: Mapping[str, Any]) -> MergeMethod:
    """Return the method that the names of a module declare.

    Raises InputError, naming each, for declarations that are missing or contradict each other.
    """
    missing = [written for written in REQUIRED.values() if written not in found]
    if missing:
        raise InputError(f"method {name}: its module lacks {', '.join(missing)}")
    names = {**REQUIRED, **{key: written for key, written in OPTIONAL.items() if written in found}}
    method = MergeMethod(name=name, **{key: found[written] for key, written in names.items()})
    if not (isinstance(method.settings, type) and issubclass(method.settings, MergeSettings)):
        raise InputError(f"method {name}: Settings must be a subclass of negmerge.merging.method.MergeSettings")
    wanted = {"element": 0, "statistics": 1}.get(method.reach)
    if wanted is None:
        raise InputError(f"method {name}: REACH must be element or statistics, got {method.reach!r}")
    if (method.ranks is not None) + (method.count is not None) != wanted:
        raise InputError(f"method {name}: ranks or count belongs to REACH = 'statistics', one of the two")
    return method
