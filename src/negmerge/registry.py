"""Names of the things that grow: each is a file in its package, or an entry point of a plug-in.

The name is the file's, with dashes. Listing imports nothing; a module is imported when it is looked up.
A plug-in declares an entry point in the group `negmerge.KIND` (for example `negmerge.methods`, dashes written as
underscores), or is a file that is named by its path.
"""

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from negmerge.errors import InputError, nearest

PACKAGES = {
    "methods": ("negmerge.merging.methods", "negmerge.unlearning.methods"),
    "sources": ("negmerge.tasks.image_classification.sources",),
    "families": ("negmerge.tasks.image_classification.families", "negmerge.tasks.zero_shot.families"),
    "text-sources": ("negmerge.tasks.text_classification.sources",),
    "text-families": ("negmerge.tasks.text_classification.families",),
    "scores": ("negmerge.scores.further",),
    "evidence": ("negmerge.evidence.tests",),
}
FILE = ".py"  # what the path of a plug-in ends with, and no name
SINGULAR = {
    "methods": "method",
    "sources": "source",
    "families": "family",
    "text-sources": "source of texts",
    "text-families": "family of text models",
    "scores": "score",
    "evidence": "test",
}

Contents = TypeVar("Contents")


@functools.cache  # reading what is installed takes 10 ms
def _locations(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES[kind]:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations is not None
        for module in pkgutil.iter_modules(list(spec.submodule_search_locations)):
            if not module.name.startswith("_"):
                found[module.name.replace("_", "-")] = f"{package}.{module.name}"
    for entry in metadata.entry_points(group=f"negmerge.{kind.replace('-', '_')}"):
        found.setdefault(entry.name, entry.value)
    return dict(sorted(found.items()))


def names(kind: str, package: str | None = None) -> list[str]:
    """Return the registered names of a kind (of `PACKAGES`: 'methods', 'sources', …), sorted.

    `package` narrows them to the files of one package, such as 'negmerge.merging.methods'.
    """
    places = _locations(kind)
    return [name for name, module in places.items() if package is None or module.startswith(package + ".")]


def load(kind: str, name: str) -> ModuleType:
    """Import and return the module registered as `name`, or the file that `name` is the path of.

    Raises InputError, with the nearest known name, where there is none, and for a file that cannot be imported.
    """
    if name.endswith(FILE):
        return _from_file(str(Path(name).resolve()))
    places = _locations(kind)
    if name not in places:
        raise InputError(
            f"unknown {SINGULAR[kind]} {name!r}{nearest(name, places)}; `negmerge list {kind}` shows them all"
        )
    return importlib.import_module(places[name])


@functools.cache
def _from_file(path: str) -> ModuleType:
    """Import a file once in a process; its name among the modules is made of its path."""
    name = f"negmerge_file_{hashlib.sha256(path.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(f"{path}: no such file; give the path of a plug-in")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a file raises that somebody else wrote
        del sys.modules[name]
        raise InputError(f"{path} cannot be imported ({type(error).__name__}: {error}); mend the plug-in") from None
    return module


def read(kind: str, name: str, contents: type[Contents]) -> Contents:
    """Return what a registered module holds as a dataclass `contents`, whose defaults stand for what it leaves out.

    Each field is a name in the module. Raises InputError for an unknown name, and for a module that lacks a field
    without a default.
    """
    module = load(kind, name)
    fields = dataclasses.fields(contents)  # type: ignore[arg-type]
    found: dict[str, Any] = {field.name: getattr(module, field.name) for field in fields if hasattr(module, field.name)}
    required = (field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING)
    missing = [field for field in required if field not in found]
    if missing:
        raise InputError(f"{SINGULAR[kind]} {name!r} ({module.__file__}) lacks {', '.join(missing)}")
    return contents(**found)
