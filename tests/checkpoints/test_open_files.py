"""A pool holds all its files open: the soft limit on them is raised, and what the hard one refuses is said."""

import json
import resource
import subprocess
import sys

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from negmerge.checkpoints.open_files import allow_open_files

MEMBERS, LIMIT = 60, 40


@pytest.fixture
def many(tmp_path):
    """A base and more members than may be open."""
    base = {"w": torch.zeros(8, 8)}
    write_state_dict(tmp_path / "base.safetensors", base)
    g = torch.Generator().manual_seed(0)
    paths = [tmp_path / f"m{i}.safetensors" for i in range(MEMBERS)]
    for path in paths:
        write_state_dict(path, {"w": 1 + 0.1 * torch.randn(8, 8, generator=g)})
    return tmp_path / "base.safetensors", paths


def merge_under(soft, hard, many, out):
    """Merge in a process of its own, whose limits on open files are these."""
    base, members = many
    words = ["merge", *map(str, (base, *members)), "-o", str(out), "--json"]
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
        f"from negmerge.cli import main; main({words!r})"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_pool_beyond_the_soft_limit(many, tmp_path):
    done = merge_under(LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1], many, tmp_path / "o.safetensors")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["members"]) == MEMBERS


def test_a_pool_beyond_the_hard_limit_is_one_line(many, tmp_path):
    done = merge_under(LIMIT, LIMIT, many, tmp_path / "o.safetensors")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not (tmp_path / "o.safetensors").exists()
    assert "Too many open files; allow more (ulimit -n), or merge fewer files" in done.stderr


def test_a_limit_that_cannot_be_raised_stays(monkeypatch):
    def refuse(*_):
        raise ValueError("current limit exceeds maximum limit")

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10, 20))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_open_files()
    monkeypatch.undo()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
