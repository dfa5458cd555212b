"""What tests share: a small pool on disk, and the real images and models, where a checkout has them beside it."""

import gc
import os
from pathlib import Path

import pytest
import torch

from negmerge.checkpoints import write_state_dict
from pools import drift, make_state

pytest_plugins = ["deadline"]

# Tests run side by side, and models this small lose by more threads than one; processes started here inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder of real images and trained models."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the folder of CIFAR-10, MNIST and trained models beside the checkout")
    return SHARED


def pytest_collection_finish():
    """What was imported stays: looking at it again and again took the collector a seventh of the CPU time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def disk_that_need_not_be_waited_for():
    """In this process nothing need outlive a power cut; the commands that tests start wait for the disk as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def pool(tmp_path):
    """Paths of a base and five members in `tmp_path/pool`."""
    folder = tmp_path / "pool"
    folder.mkdir()
    base = make_state(0)
    write_state_dict(folder / "base.safetensors", base)
    members = []
    for i in range(5):
        members.append(folder / f"member{i}.safetensors")
        write_state_dict(members[-1], drift(base, i))
    return folder / "base.safetensors", members
