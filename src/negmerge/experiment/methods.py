"""All methods by name, whatever their kind: what they need, what they take, how they are run."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from negmerge import registry
from negmerge.errors import InputError, nearest
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
        settings = {k: p.default for k, p in _keywords(module).items()}
        return MethodInfo(name, "merge", ("pool", "forget"), module.SUMMARY, module.REFERENCE, settings)
    settings = {k: f.default for k, f in module.Settings.model_fields.items()}
    return MethodInfo(name, module.KIND, module.NEEDS, module.SUMMARY, module.REFERENCE, settings)


def check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raise InputError for a method that is unknown, or a setting that it does not take or refuses."""
    known = describe(name).settings
    for key in settings:
        if key not in known:
            takes = ", ".join(known) or "none"
            raise InputError(f"method {name} does not take {key!r}{nearest(key, known)}; its settings: {takes}")
    module = registry.load("methods", name)
    if _merges(module):
        import torch

        try:  # the method itself is the judge of its values
            module.merge(torch.ones(2, 1), **settings)
        except TypeError as error:
            raise InputError(f"method {name}: {error}") from None
    else:
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


def _keywords(module: ModuleType) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(module.merge).parameters
    return {k: p for k, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
