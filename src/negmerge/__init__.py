"""negmerge: make a trained model forget by merging task vectors on whose signs all agree.

`import negmerge` is light: torch is imported when a name below is first used.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from negmerge.version import __version__

logging.getLogger(__name__).addHandler(logging.NullHandler())  # what is logged is shown where one asks for it

_PLACES = {
    "merge": ("negmerge.merging.engine", "merge_checkpoints"),
    "merge_as_adapter": ("negmerge.merging.as_adapter", "merge_as_adapter"),
    "merge_recipe": ("negmerge.projection.recipe", "merge_recipe"),
    "merge_state_dicts": ("negmerge.merging.engine", "merge_state_dicts"),
    "inspect": ("negmerge.merging.inspecting", "inspect_checkpoints"),
    "unlearn": ("negmerge.experiment.unlearn", "unlearn"),
    "choose_alpha": ("negmerge.selection", "choose_alpha"),
    "run": ("negmerge.experiment.pipeline", "run"),
    "export": ("negmerge.experiment.exporting.export", "export"),
    "NegmergeError": ("negmerge.errors", "NegmergeError"),
    "InputError": ("negmerge.errors", "InputError"),
}

__all__ = [
    "InputError",
    "NegmergeError",
    "__version__",
    "choose_alpha",
    "export",
    "inspect",
    "merge",
    "merge_as_adapter",
    "merge_recipe",
    "merge_state_dicts",
    "run",
    "unlearn",
]

if TYPE_CHECKING:
    from negmerge.errors import InputError, NegmergeError
    from negmerge.experiment.exporting.export import export
    from negmerge.experiment.pipeline import run
    from negmerge.experiment.unlearn import unlearn
    from negmerge.merging.as_adapter import merge_as_adapter
    from negmerge.merging.engine import merge_checkpoints as merge
    from negmerge.merging.engine import merge_state_dicts
    from negmerge.merging.inspecting import inspect_checkpoints as inspect
    from negmerge.projection.recipe import merge_recipe
    from negmerge.selection import choose_alpha


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'negmerge' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
