"""All methods by name, whatever their kind: what they need, what they take, how they are run."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from negmerge import registry
from negmerge.errors import InputError
from negmerge.merging.merger import Merger, check_names, method_settings
from negmerge.unlearning import Context, Outcome
from negmerge.unlearning._negation import negate


@dataclass(frozen=True)
class MethodInfo:
    """A method as the tables show it."""

    name: str
    kind: str
    needs: tuple[str, ...]
    summary: str
    reference: str
    settings: dict[str, Any]


def describe(name: str) -> MethodInfo:
    """Return the facts of a registered method; `settings` maps each to its default."""
    module = registry.load("methods", name)
    if _merges(module):
        settings = method_settings(module)
        return MethodInfo(name, "merge", ("pool", "forget"), module.SUMMARY, module.REFERENCE, settings)
    settings = {k: f.default for k, f in module.Settings.model_fields.items()}
    return MethodInfo(name, module.KIND, module.NEEDS, module.SUMMARY, module.REFERENCE, settings)


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError for a method that is unknown, or a setting that it does not take or refuses."""
    module = registry.load("methods", name)
    if _merges(module):
        Merger(name, settings)
        return
    check_names(name, describe(name).settings, settings)
    try:
        module.Settings(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"method {name}: {where}: {first['msg']}") from None


def run_method(name: str, settings: Mapping[str, Any], context: Context) -> Outcome:
    """Run a method of any kind."""
    module = registry.load("methods", name)
    if _merges(module):
        return negate(context, name, settings, context.members, "merged")
    outcome: Outcome = module.unlearn(context, module.Settings(**settings))
    return outcome


def _merges(module: ModuleType) -> bool:
    return hasattr(module, "merge")
