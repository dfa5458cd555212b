"""All methods by name, whatever their kind: what they need, what they take, how they are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from negmerge import registry
from negmerge.checking import MistakesError, mistakes_of, unknown
from negmerge.declared import declared
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.merger import Merger
from negmerge.merging.method import MERGE_NEEDS, load_method, merges
from negmerge.tasks.task import Task, need
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.method import Method, OwnPool, method_of
from negmerge.unlearning.negation import negate
from negmerge.unlearning.search import candidates, search_ranges, unlearn_searched

AUTO = "auto"
LIKE_UNSEEN = ("match-holdout", "match-reference")  # of rows that are to become like unseen ones: docs/choosing.md
FEW = 3  # members up to which their consensus is nearer to Retrain than their mean: docs/results/few-members.md


def chosen_method(name: str, like_unseen: bool, members: int, settings: Mapping[str, Any] | None = None) -> str:
    """Return the name of a method; for "auto" that of the merge for a request and so many members.

    Rows that are to become like unseen ones take the mean, and of 2 or 3 members their consensus; what goes as a whole
    takes the consensus. Settings without a method are those of consensus.

    >>> chosen_method("auto", True, 9), chosen_method("auto", True, 3)
    ('uniform', 'consensus')
    >>> chosen_method("auto", False, 9), chosen_method("ties", True, 9)
    ('consensus', 'ties')
    """
    if name != AUTO:
        return name
    few = 1 < members <= FEW
    return "uniform" if like_unseen and not few and not settings else "consensus"


@dataclass(frozen=True)
class ListedMethod:
    """A method as a list shows it; `search` maps settings to the values that are tried where none is given."""

    name: str
    kind: str
    needs: tuple[str, ...]
    summary: str
    reference: str
    settings: dict[str, Any]
    search: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodInfo(ListedMethod):
    """A method as the tables show it.

    `requires` are the capabilities that a task must have; for the rest see `negmerge.unlearning.method.Method`.
    """

    requires: tuple[type, ...] = ()
    scratch: bool = False
    exact: bool = False
    each_member: bool = False


def describe(name: str) -> MethodInfo:
    """Return the facts of a registered method; `settings` maps each to its default."""
    module = registry.load("methods", name)
    if merges(module):
        found = load_method(name)
        return MethodInfo(name, "merge", MERGE_NEEDS, found.summary, found.reference, found.defaults)
    method = method_of(name)
    return MethodInfo(
        name,
        **_listed(method),
        requires=method.REQUIRES,
        scratch=method.SCRATCH,
        exact=method.EXACT,
        each_member=method.EACH_MEMBER,
    )


def listed(name: str) -> ListedMethod:
    """Return what a list shows of a registered method, as `describe` does; a file of ours is not imported for it."""
    wanted = ("KIND", "NEEDS", "SUMMARY", "REFERENCE", "Settings", "SEARCH")
    if not registry.is_ours("methods", name):
        return describe(name)
    return ListedMethod(name, **_listed(declared("methods", name, wanted, "negmerge.unlearning.method:Method")))


def _listed(method: Any) -> dict[str, Any]:
    """Return the fields of `ListedMethod` but the name, of a method that does not merge."""
    return {
        "kind": method.KIND,
        "needs": method.NEEDS,
        "summary": method.SUMMARY,
        "reference": method.REFERENCE,
        "settings": {k: f.get_default(call_default_factory=True) for k, f in method.Settings.model_fields.items()},
        "search": search_ranges(method, {}),
    }


def trials_of(name: str, members: int) -> int:
    """Return for how many vectors a method chooses α with a pool of so many, those of single members aside."""
    info = describe(name)
    return 1 if info.kind == "merge" else method_of(name).trials(members)


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError for a method that is unknown, or a setting that it does not take or refuses."""
    module = registry.load("methods", name)
    if merges(module):
        Merger(name, settings)
        return
    method = method_of(name)
    known = describe(name).settings
    wrong = [unknown(key, known) for key in settings if key not in known]
    if wrong:
        raise MistakesError(f"method {name}", wrong)
    for key, values in search_ranges(method, settings).items():
        if not values or len({repr(value) for value in values}) < len(values):
            raise InputError(f"method {name}: {key}: give a list of different values to search, got {values}")
    try:
        for candidate in candidates(method, settings):
            method.Settings(**candidate)
    except InputError as error:  # of a merge that the method's settings name
        raise MistakesError(f"method {name}", mistakes_of(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"method {name}: {where}: {first['msg']}") from None


def check_task(name: str, task: Task) -> None:
    """Raise InputError where a method requires a capability that the task does not have."""
    for capability in describe(name).requires:
        need(task, capability, f"the method {name}")


def needs_of(name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the data that a method uses with these settings (lists that are searched: with the first of each)."""
    info = describe(name)
    method = None if info.kind == "merge" else method_of(name)
    if method is None or method.needs is None:
        return info.needs
    return method.needs(method.Settings(**next(candidates(method, settings))))


def own_pools(name: str, settings: Mapping[str, Any]) -> Sequence[OwnPool]:
    """Return the pools that a method trains itself, beside that of the run."""
    method = _select(name)
    return () if method is None else method.pools(method.Settings(**settings))


def files_of(name: str, settings: Mapping[str, Any]) -> Sequence[Path]:
    """Return the files that a method reads with these settings."""
    method = _select(name)
    return () if method is None else method.files(method.Settings(**settings))


def check_origin(name: str, settings: Mapping[str, Any], trained: bool, where: str) -> None:
    """Raise InputError where a file that a method reads is not there, or it asks where a base began that was given.

    `trained`: whether the run trains the base.
    """
    lost = [path for path in files_of(name, settings) if not path.is_file()]
    if lost:
        raise InputError(f"{where}: {lost[0]}: no such file; give a checkpoint that exists")
    method = _select(name)
    if not trained and method is not None and method.begins(method.Settings(**settings)):
        raise InputError(
            f"{where}: nobody knows where the training of a base that was given began; give origin: FILE, a checkpoint "
            "of the model before it, or origin: base"
        )


def _select(name: str) -> Method | None:
    """Return a method that selects, None for one of another kind."""
    return method_of(name) if describe(name).kind == "select" else None


def run_method(
    name: str, settings: Mapping[str, Any], context: Context, earlier: Mapping[str, Any] | None = None
) -> Outcome:
    """Run a method of any kind; `earlier` is the record of the search for its settings, where there was one before.

    Raises NegmergeError, naming the method, where its training diverges.
    """
    module = registry.load("methods", name)
    if merges(module):
        return negate(context, name, settings, context.members, "merged")
    try:
        return unlearn_searched(method_of(name), settings, context, earlier)
    except NegmergeError as error:
        raise type(error)(f"method {name}: {error}") from None
