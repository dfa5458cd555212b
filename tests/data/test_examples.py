"""The examples in the docstrings of data, models and metrics run."""

import doctest
import importlib
import pkgutil

import pytest

import negmerge.data
import negmerge.metrics
import negmerge.models

MODULES = [
    module.name
    for package in (negmerge.data, negmerge.models, negmerge.metrics)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 10
