"""The examples run, and so does every example in a docstring."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import negmerge

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONG = {
    "photos_by_name.py": 60,
    "run_experiment.py": 15,
    "forget_label.py": 15,
    "adapter_pool.py": 8,
    "own_architecture.py": 8,
    "tabular_rows.py": 7,
    "own_model.py": 6,
}
FORGOTTEN = {  # the row that is handed over, and percent of the rows to forget that it may still know
    "photos_by_name.py": ("uniform", 50.0),
    "forget_label.py": ("consensus", 10.0),
}
MODULES = sorted(m.name for m in pkgutil.walk_packages(negmerge.__path__, "negmerge.") if m.name != "negmerge.__main__")


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


def example(path):
    """An example, marked with its seconds where it is long."""
    marks = [pytest.mark.heavy(LONG[path.name])] if path.name in LONG else []
    return pytest.param(path, id=path.name, marks=marks)


@pytest.mark.parametrize("path", [example(path) for path in EXAMPLES])
def test_an_example_runs(path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if path.name in FORGOTTEN:
        merge, most = FORGOTTEN[path.name]
        row = re.search(rf"^{merge} +([0-9.]+) +([0-9.]+)", done.stdout, re.MULTILINE)
        assert float(row[1]) <= most and float(row[2]) >= 95, done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


@pytest.mark.parametrize("name", negmerge.__all__)
def test_public_names_are_there_and_documented(name):
    assert getattr(negmerge, name) is not None
    assert name == "__version__" or getattr(negmerge, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        negmerge.nonsense  # noqa: B018
