"""What a file of the package declares, read without importing it, so that listing needs no torch.

`declarations(module).NAME` runs the one statement at the top of the module's file that binds NAME, and before it those
that bind the names it uses, there and in the files of the package that it imports from. Nothing else of the files is
run, and what the bodies of functions use only when they are called; annotations of functions and dataclasses are left
out. The value is the one that importing gives where each of these names is bound once and not changed afterwards;
where it cannot be had so, `declared` imports the file.
"""

import ast
import builtins
import functools
import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from negmerge import registry

ROOT = Path(__file__).parent
LIGHT = sys.stdlib_module_names | {"pydantic", "typing_extensions"}  # what a declaration may import


class UnreadableError(Exception):
    """A declaration cannot be run alone."""


class _Names(dict[str, Any]):
    """The names at the top of a file; one that is looked up for the first time is bound then."""

    def __init__(self, module: str) -> None:
        place = _place(module)
        self.path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        super().__init__(__name__=module, __file__=str(self.path), __builtins__=builtins)
        self.binding: dict[str, list[ast.stmt]] = {}
        for node in ast.parse(self.path.read_bytes()).body:
            for name in _bound(node):
                self.binding.setdefault(name, []).append(node)

    def __missing__(self, name: str) -> Any:
        if name not in self.binding:
            raise KeyError(name)
        if len(self.binding[name]) > 1:
            raise UnreadableError(f"{self.path}: {name} is bound twice")
        match self.binding[name][0]:
            case ast.Import() | ast.ImportFrom() as node:
                self[name] = _imported(node, name)
            case node:
                self.run(node)
        return self[name]

    def run(self, node: ast.stmt) -> None:
        """Run a statement, after those that bind what it uses."""
        node = _Untyped().visit(node)
        for used in _used(node):
            if used in self.binding:  # a class looks names up in a way that does not ask `__missing__`
                self[used]
        exec(compile(ast.Module([node], []), str(self.path), "exec", dont_inherit=True), self)


class Declared:
    """The names at the top of a file, as attributes, and the modules of a package."""

    def __init__(self, module: str) -> None:
        self._module, self._names = module, _Names(module)

    def __contains__(self, name: str) -> bool:
        return name in self._names.binding

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self._names[name]
        place = _place(f"{self._module}.{name}")
        if place.is_dir() or place.with_suffix(".py").is_file():
            return declarations(f"{self._module}.{name}")
        raise UnreadableError(f"{self._module} declares no {name}")

    def default(self, dataclass: str, name: str) -> Any:
        """Return the default of a field that a dataclass of the file declares itself, without running the dataclass."""
        for node in self._names.binding[dataclass][0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign) and node.value is not None and ast.unparse(node.target) == name:
                place = ast.Name(f"{dataclass}.{name}", ast.Store())  # no other name of a file has a point
                statement = ast.copy_location(ast.Assign([place], node.value), node)
                self._names.run(ast.fix_missing_locations(statement))
                value = self._names[place.id]
                factory = getattr(value, "default_factory", None)
                return factory() if callable(factory) else value
        raise UnreadableError(f"{self._module}: {dataclass} has no default for {name}")


@functools.cache
def declarations(module: str) -> Declared:
    """Return the names that a module of the package, given by its full name, declares; it is not imported."""
    return Declared(module)


def declared(kind: str, name: str, wanted: Iterable[str], contents: str) -> Any:
    """Return an object with the `wanted` names of what is registered as `name`, without importing it where possible.

    `contents` is the dataclass, 'MODULE:CLASS', whose defaults stand for what a file leaves out. Where something cannot
    be read, and of plug-ins, the file is imported and read as that. Raises InputError for one that lacks something.
    """
    module, _, dataclass = contents.partition(":")
    if registry.is_ours(kind, name):
        try:
            file, known = declarations(registry.place(kind, name)), declarations(module)
            found = {one: getattr(file, one) if one in file else known.default(dataclass, one) for one in wanted}
            return SimpleNamespace(**found)
        except Exception:  # whatever is wrong with a file, importing it says so better
            pass
    return registry.read(kind, name, getattr(importlib.import_module(module), dataclass))


def _place(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")[1:])


class _Untyped(ast.NodeTransformer):
    """A statement without the annotations that do nothing: all but those of classes that are no dataclasses."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        for part in ast.walk(node.args):
            if isinstance(part, ast.arg):
                part.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and "ClassVar" not in ast.unparse(part.annotation):
                    part.annotation = ast.copy_location(ast.Name("object", ast.Load()), part)
        return self.generic_visit(node)


def _bound(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at the top of a file binds."""
    match node:
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        case ast.FunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Assign(targets=[*targets]):
            yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            yield name


def _used(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement looks up while it is run: those in the bodies of functions are not."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield node.id
    body = node.body if isinstance(node, ast.FunctionDef | ast.Lambda) else ()
    for child in ast.iter_child_nodes(node):
        if child is not body and child not in (body if isinstance(body, list) else ()):
            yield from _used(child)


def _imported(node: ast.Import | ast.ImportFrom, name: str) -> Any:
    """Return what an import binds to a name; a module of the package is read, not imported."""
    alias = next(alias for alias in node.names if (alias.asname or alias.name.partition(".")[0]) == name)
    module = str(node.module) if isinstance(node, ast.ImportFrom) else alias.name
    root = module.partition(".")[0]
    if root == ROOT.name and isinstance(node, ast.ImportFrom):
        return getattr(declarations(module), alias.name)
    if root not in LIGHT:
        raise UnreadableError(f"{module} is imported")
    found = importlib.import_module(module)
    if isinstance(node, ast.ImportFrom):
        return getattr(found, alias.name)
    return found if alias.asname else sys.modules[root]
