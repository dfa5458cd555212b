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
from collections.abc import Iterable
from importlib import metadata
from importlib.machinery import FileFinder
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
    "question-sources": ("negmerge.tasks.causal_lm.sources",),
    "tasks": ("negmerge.tasks",),
    "scores": ("negmerge.scores.further",),
    "evidence": ("negmerge.evidence.tests",),
}
INSIDE = {"tasks": "preparing"}  # each of these is a package, and the module of this name in it is what is registered
FILE = ".py"  # what the path of a plug-in ends with, and no name
FROM_FILE = "negmerge_file_"  # what the names of modules begin with that were files of plug-ins
SINGULAR = {
    "methods": "method",
    "sources": "source",
    "families": "family",
    "text-sources": "source of texts",
    "text-families": "family of text models",
    "question-sources": "source of questions",
    "tasks": "task",
    "scores": "score",
    "evidence": "test",
}

Contents = TypeVar("Contents")


@functools.cache  # reading what is installed takes 10 ms
def _locations(kind: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES[kind]:
        folder = Path(__file__).parent.joinpath(*package.split(".")[1:])  # to ask for it would import those above it
        for module in pkgutil.iter_modules([str(folder)]):
            file = _place(module, INSIDE.get(kind))
            if file is not None and not module.name.startswith("_"):
                found[module.name.replace("_", "-")] = f"{package}.{file}"
    for entry in metadata.entry_points(group=f"negmerge.{kind.replace('-', '_')}"):
        found.setdefault(entry.name, entry.value)
    return dict(sorted(found.items()))


def _place(module: pkgutil.ModuleInfo, inside: str | None) -> str | None:
    """Return the module to register, seen from its package: a file, or the one `inside` a package; None for neither."""
    if inside is None:
        return module.name
    assert isinstance(module.module_finder, FileFinder)
    there = module.ispkg and (Path(module.module_finder.path) / module.name / f"{inside}{FILE}").is_file()
    return f"{module.name}.{inside}" if there else None


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
    return importlib.import_module(place(kind, name))


def place(kind: str, name: str) -> str:
    """Return the module that is registered as `name`.

    Raises InputError, with the nearest known name, where there is none.
    """
    places = _locations(kind)
    if name not in places:
        raise InputError(
            f"unknown {SINGULAR[kind]} {name!r}{nearest(name, places)}; `negmerge list {kind}` shows them all"
        )
    return places[name]


def is_ours(kind: str, name: str) -> bool:
    """Return whether what is registered as `name` is a file of the package, and no plug-in."""
    return place(kind, name).startswith(tuple(f"{package}." for package in PACKAGES[kind]))


@functools.cache
def _from_file(path: str) -> ModuleType:
    """Import a file once in a process; its name among the modules is made of its path."""
    name = f"{FROM_FILE}{hashlib.sha256(path.encode()).hexdigest()[:16]}"
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


def imported_files() -> list[str]:
    """Return the files of plug-ins that this process has imported and that are still there, in a fixed order."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(FROM_FILE)]
    return sorted(str(module.__file__) for module in modules if Path(str(module.__file__)).is_file())


def import_files(paths: Iterable[str]) -> None:
    """Import files of plug-ins, as another process did: what it pickles of them can be read then."""
    for path in paths:
        _from_file(path)


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
