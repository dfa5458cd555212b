"""The wheel says that the package has types. That they are right, `make check` finds: mypy, strict, examples too."""

import tomllib
from importlib import resources
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def test_the_package_says_that_it_has_types():
    assert resources.files("negmerge").joinpath("py.typed").is_file()
    assert (PROJECT / "src/negmerge/py.typed").is_file()
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build == {"packages": ["src/negmerge"]}  # every file of the folder that git does not ignore is in the wheel
