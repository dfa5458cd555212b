"""No file imports, at once, later or for its types alone, one that leads back to it."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import negmerge

ROOT = Path(negmerge.__file__).parent


def modules():
    """Return path by dotted name of every file of the package."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = [ROOT.name, *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path, known):
    """Return the modules of the package that a file imports anywhere, under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_circle_between_files():
    known = modules()
    graph = {name: {m for m in imported(path, known) if m in known and m != name} for name, path in known.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None
    assert order.index("negmerge.errors") < order.index("negmerge.merging.engine") < order.index("negmerge")
