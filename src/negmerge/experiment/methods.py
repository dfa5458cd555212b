"""All methods by name, whatever their kind: what they need, what they take, how they are run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from negmerge import registry
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.merger import Merger, check_names, method_settings
from negmerge.tasks.task import Task, need
from negmerge.unlearning.context import Context, Outcome
from negmerge.unlearning.negation import negate
from negmerge.unlearning.search import candidates, search_ranges, unlearn_searched


@dataclass(frozen=True)
class MethodInfo:
    """A method as the tables show it; `search` maps settings to the values that are tried where none is given.

    `requires` are the capabilities that a task must have.
    """

    name: str
    kind: str
    needs: tuple[str, ...]
    summary: str
    reference: str
    settings: dict[str, Any]
    search: dict[str, list[Any]] = field(default_factory=dict)
    requires: tuple[type, ...] = ()


def describe(name: str) -> MethodInfo:
    """Return the facts of a registered method; `settings` maps each to its default."""
    module = registry.load("methods", name)
    if _merges(module):
        settings = method_settings(module)
        return MethodInfo(name, "merge", ("pool", "forget"), module.SUMMARY, module.REFERENCE, settings)
    settings = {k: f.default for k, f in module.Settings.model_fields.items()}
    search = search_ranges(module, {})
    requires = getattr(module, "REQUIRES", ())
    return MethodInfo(name, module.KIND, module.NEEDS, module.SUMMARY, module.REFERENCE, settings, search, requires)


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError for a method that is unknown, or a setting that it does not take or refuses."""
    module = registry.load("methods", name)
    if _merges(module):
        Merger(name, settings)
        return
    check_names(name, describe(name).settings, settings)
    for key, values in search_ranges(module, settings).items():
        if not values or len({repr(value) for value in values}) < len(values):
            raise InputError(f"method {name}: {key}: give a list of different values to search, got {values}")
    try:
        for candidate in candidates(module, settings):
            module.Settings(**candidate)
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
    module = registry.load("methods", name)
    if not hasattr(module, "needs"):
        return describe(name).needs
    needs: tuple[str, ...] = module.needs(module.Settings(**next(candidates(module, settings))))
    return needs


def run_method(
    name: str, settings: Mapping[str, Any], context: Context, earlier: Mapping[str, Any] | None = None
) -> Outcome:
    """Run a method of any kind; `earlier` is the record of the search for its settings, where there was one before.

    Raises NegmergeError, naming the method, where its training diverges.
    """
    module = registry.load("methods", name)
    if _merges(module):
        return negate(context, name, settings, context.members, "merged")
    try:
        return unlearn_searched(module, settings, context, earlier)
    except NegmergeError as error:
        raise type(error)(f"method {name}: {error}") from None


def _merges(module: ModuleType) -> bool:
    return hasattr(module, "merge")
