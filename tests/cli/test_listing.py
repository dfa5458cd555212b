"""`negmerge list`: read as importing the files would have it, without torch; and what it shows."""

import subprocess
import sys

import pytest
from pydantic import BaseModel

from negmerge import declared, registry
from negmerge.cli.listing import Kind, list_names

EVERY = """
import sys
from negmerge.cli.listing import Kind, list_names
for kind in Kind:
    list_names(kind)
print(*(m for m in ("torch", "numba") if m in sys.modules), file=sys.stderr)
"""
FILE = """
from __future__ import annotations

import numpy
from dataclasses import dataclass, field
from functools import partial as part
from pydantic import BaseModel, Field
from torch import Tensor

from {pack} import other
from {pack}.other import WORDS, Base

LEAST: int = 3
SUMMARY, TITLE = f"{{WORDS.split()[0]}} words", other.WORDS.upper()
TWICE = 1
TWICE = 2
ADDED = 1
ADDED += 1
ARRAY = numpy.zeros(3)
HALF = part(int, base=2)


def weigh(values: Tensor, least: int = LEAST) -> Tensor:
    return _helped(values) + least + numpy.float64(0)


def _helped(values: Tensor) -> Tensor:
    return values


def doubled(values: Tensor, least: int = LEAST) -> Tensor:
    return 2 * _helped(values) + least


class Settings(Base):
    least: int = Field(2 * LEAST, description=f"at least {{LEAST}}")
    names: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Contents:
    SUMMARY: str
    weights: Tensor | None = None
    LEAST: int = LEAST + 1
    found: dict[str, Tensor] = field(default_factory=dict)
"""
OTHER = """
import torch
from pydantic import BaseModel

WORDS = "two words"


class Base(BaseModel):
    path: str

    def load(self) -> torch.Tensor:
        return torch.zeros(1)


class Tensors(torch.nn.Module):
    pass
"""


@pytest.fixture
def pack(tmp_path, monkeypatch):
    folder = tmp_path / f"pack_{tmp_path.name}"  # a name of its own for each test: what was read is kept
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "file.py").write_text(FILE.format(pack=folder.name))
    (folder / "other.py").write_text(OTHER)
    monkeypatch.setattr(declared, "ROOT", folder)
    return folder.name


@pytest.mark.parametrize("kind", Kind)
def test_the_list_is_the_one_that_importing_gives(kind, capsys, monkeypatch):
    list_names(kind)
    read = capsys.readouterr().out
    monkeypatch.setattr(registry, "is_ours", lambda *_: False)
    list_names(kind)
    imported = capsys.readouterr().out
    assert read == imported and len(read.splitlines()) >= len(registry.names(kind.value))


def test_everything_is_listed_without_torch():
    done = subprocess.run([sys.executable, "-c", EVERY], check=True, capture_output=True, text=True)
    assert done.stderr.split() == []
    listed = [line.split(" ")[0] for line in done.stdout.splitlines()]
    assert {name for kind in Kind for name in registry.names(kind.value)} <= set(listed)


def test_declarations_are_those_of_the_file(pack):
    file = declared.declarations(f"{pack}.file")
    assert (file.SUMMARY, file.TITLE, file.HALF("11")) == ("two words", "TWO WORDS", 3)
    assert "Settings" in file and "Tensor" in file and "path" not in file
    assert issubclass(file.Settings, BaseModel) and list(file.Settings.model_fields) == ["path", "least", "names"]
    least = file.Settings.model_fields["least"]
    assert (least.default, least.description) == (6, "at least 3")
    assert file.Settings(path="p").names == [] and file.doubled(5) == 13
    assert file.default("Contents", "LEAST") == 4 and file.default("Contents", "found") == {}
    assert file.default("Contents", "weights") is None and file.Contents("one").LEAST == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TWICE", "TWICE is bound twice"),
        ("ADDED", "ADDED is bound twice"),
        ("ARRAY", "numpy is imported"),
        ("Tensor", "torch is imported"),
        ("nowhere", "file declares no nowhere"),
    ],
)
def test_what_cannot_be_read_is_refused(pack, name, said):
    with pytest.raises(declared.UnreadableError, match=said):
        getattr(declared.declarations(f"{pack}.file"), name)
    with pytest.raises(declared.UnreadableError, match="torch is imported"):
        _ = declared.declarations(f"{pack}.other").Tensors
    with pytest.raises(declared.UnreadableError, match="Contents has no default for SUMMARY"):
        declared.declarations(f"{pack}.file").default("Contents", "SUMMARY")


def test_what_cannot_be_read_is_imported(monkeypatch):
    def refuse(module):
        raise declared.UnreadableError(module)

    monkeypatch.setattr(declared, "declarations", refuse)
    found = declared.declared("evidence", "probe", ["SUMMARY"], "negmerge.evidence.protocol:EvidenceTest")
    assert found.SUMMARY == registry.load("evidence", "probe").SUMMARY and callable(found.run)


@pytest.mark.parametrize("kind", ["methods", "sources", "families"])
def test_list(negmerge, kind):
    from negmerge import registry

    code, out, _ = negmerge("list", kind)
    assert code == 0
    for name in registry.names(kind):
        assert any(line.startswith(name) for line in out.splitlines())


def test_list_says_what_a_named_data_set_is_made_of(negmerge):
    _, out, _ = negmerge("list", "sources")
    lines = [line.strip() for line in out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("svhn "))
    assert lines[start + 1 : start + 5] == [
        "splits train=train, test=test; columns image=image, label=label; configuration cropped_digits",
        "classes: 0 | 1 | 2 | 3 | …",
        'templates: a photo of the number: "{}".',
        "validation: a seeded 10 % of the train rows, at most 5,000, unless data.validation says otherwise",
    ]
    assert "splits train=train, test=validation; columns image=image, label=label" in lines
    assert "classes: worded from the data set's own names" in lines and any("image=img" in line for line in lines)


def test_list_shows_settings(negmerge):
    code, out, _ = negmerge("list", "sources")
    assert code == 0 and "path (needed): folder with train/ and test/" in out and "test_fraction (0.2)" in out
    code, out, _ = negmerge("list", "families")
    assert "width (32): channels of the first layer" in out
